# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Work that must not stop halfway: the way back, and what would leave a guest stuck."""

from __future__ import annotations

import asyncio
import typing as t

_Result = t.TypeVar("_Result")


async def uninterrupted(work: t.Coroutine[t.Any, t.Any, _Result]) -> _Result:
    """Finish ``work`` whatever cancels the caller meanwhile: halfway, the guest would be stuck."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except BaseException:  # of the work itself: raised by result()
            break
    return task.result()
