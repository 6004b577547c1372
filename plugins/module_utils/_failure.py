# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Turning the cause of a failed run into the operator's words and plain facts."""

from __future__ import annotations

import asyncio
import typing as t

from ._errors import VmfleetError
from ._qemu._secrets import hide_in

_OURS = ("guest", "image", "actions", "step")


def words_of(cause: BaseException) -> str:
    """One full sentence, without what looks like a secret: QEMU repeats the word of its command
    line that it does not understand, and libvirt repeats QEMU."""
    if isinstance(cause, asyncio.CancelledError):
        return "the run was interrupted by a signal."
    text = hide_in(cause.message if isinstance(cause, VmfleetError) else str(cause))
    return text if text.endswith(".") else text + "."


def facts_of(cause: BaseException) -> dict[str, t.Any]:
    """The cause's facts without those that the failing run states itself."""
    facts = cause.facts if isinstance(cause, VmfleetError) else {}
    return {key: value for key, value in facts.items() if key not in _OURS}
