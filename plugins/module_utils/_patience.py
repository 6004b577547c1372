# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Waiting for another run: one whose controller was killed, say, goes on and ends by itself."""

from __future__ import annotations

import asyncio
import time
import typing as t

from ._errors import Busy
from ._telling import about, tell_step

WAITING = "wait"
_PATIENCE_SECONDS = 3600.0
_LOOK_AGAIN_SECONDS = 1.0

_Result = t.TypeVar("_Result")


async def patiently(
    work: t.Callable[[], t.Coroutine[t.Any, t.Any, _Result]],
    subject: str,
    timeout_seconds: float = 0.0,
) -> _Result:
    """Do ``work`` as soon as no other run is at it: it looks anew then, and mostly finds it done.

    Waits for ``timeout_seconds``, an hour with 0, then raises `Busy`, which names the other run.
    """
    end = time.monotonic() + (timeout_seconds or _PATIENCE_SECONDS)
    try:
        return await work()
    except Busy as exc:
        other = exc
    with about(WAITING, subject, None):
        tell_step(other.message)
        while time.monotonic() < end:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            try:
                return await work()
            except Busy as exc:
                other = exc
                tell_step(other.message)
    raise other
