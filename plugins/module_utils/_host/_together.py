# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Many guests at once, in one event loop."""

from __future__ import annotations

import asyncio
import typing as t
from concurrent.futures import ThreadPoolExecutor

# A save through libvirt blocks a thread as long as it takes, and what looks at it, or stops it,
# needs another one; QMP guests flush and verify in one.
_THREADS_PER_GUEST = 4
_Result = t.TypeVar("_Result")


def make_room(guests: int) -> None:
    """Threads enough that no guest waits for another one's. To be called in the event loop."""
    executor = ThreadPoolExecutor(max_workers=8 + _THREADS_PER_GUEST * guests)
    asyncio.get_running_loop().set_default_executor(executor)


async def all_of(works: t.Iterable[t.Awaitable[_Result]]) -> list[_Result]:
    """Run all of them to their ends; a cancellation is passed on to each and waited out, so that
    each can undo what it did. Raises asyncio.CancelledError then, else what the first raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    cancelled = False
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
            for task in tasks:
                task.cancel()
    for task in tasks:
        if not task.cancelled():
            task.exception()  # else asyncio prints what nobody asked for
    if cancelled:
        raise asyncio.CancelledError
    return [task.result() for task in tasks]


async def at_most(
    limit: int, works: t.Iterable[t.Coroutine[t.Any, t.Any, _Result]]
) -> list[_Result]:
    """As `all_of`, no more than ``limit`` at a time."""
    room = asyncio.Semaphore(limit)

    async def one(work: t.Coroutine[t.Any, t.Any, _Result]) -> _Result:
        async with room:
            return await work

    return await all_of([one(work) for work in works])


class Once(t.Generic[_Result]):
    """Work that the first who needs it begins, and all who need it wait for."""

    def __init__(self, work: t.Callable[[], t.Coroutine[t.Any, t.Any, _Result]]) -> None:
        self._work = work
        self._task: asyncio.Task[_Result] | None = None

    async def done(self) -> _Result:
        """Its result; who is cancelled here leaves it to the others."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
        return await asyncio.shield(self._task)

    async def over(self) -> None:
        """Wait until it has ended, where it was begun."""
        if self._task is not None:
            await asyncio.wait([self._task])
