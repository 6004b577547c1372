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
    """Finish ``work``, whatever cancels the caller meanwhile, and forget that it was cancelled:
    for the end of a run, which is over anyway."""
    finished, _cancelled = await _finish(work)
    return finished.result()


async def finished_first(work: t.Coroutine[t.Any, t.Any, _Result]) -> _Result:
    """Finish ``work`` before a cancellation goes on its way, at the caller's next await: for a step
    in the middle of a run whose half nobody could undo."""
    finished, cancelled = await _finish(work)
    current = asyncio.current_task()
    if cancelled and current is not None:
        current.cancel()
    return finished.result()


async def in_thread(work: t.Callable[[], _Result]) -> _Result:
    """Run ``work``, which blocks, while other guests' tasks go on. It is waited for whatever
    cancels the caller: it may use what the caller closes."""
    loop = asyncio.get_running_loop()

    async def run() -> _Result:
        return await loop.run_in_executor(None, work)

    return await finished_first(run())


async def within(timeout_seconds: float | None, work: t.Awaitable[_Result]) -> _Result:
    """`asyncio.wait_for`, but never losing a cancellation: up to Python 3.11 that one returns the
    result and forgets the cancellation when both come together. Raises asyncio.TimeoutError."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=timeout_seconds)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    raise asyncio.TimeoutError


async def _finish(
    work: t.Coroutine[t.Any, t.Any, _Result],
) -> tuple[asyncio.Task[_Result], bool]:
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    return task, cancelled
