# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What all guests of one run share: the journal, the limits, the results."""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing as t

from ._forecast import Limits
from ._journal_file import JournalWriter
from ._outcome import GuestResult
from ._together import all_of


class Run:
    """``results`` by the guests' keys; ``actions`` of the host itself; ``began``: when, by the
    monotonic clock."""

    def __init__(self, writer: JournalWriter, limits: Limits, began: float) -> None:
        self.writer = writer
        self._began = began
        self.results: dict[str, GuestResult] = {}
        self.actions: list[str] = []
        self.warnings: list[str] = []
        self.host_error: str | None = None
        self._limits = limits
        self._host = asyncio.Semaphore(limits.total)
        self._stores: dict[int, asyncio.Semaphore] = {}
        self._aside: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def room(self, device: int) -> t.AsyncIterator[None]:
        """While one guest is moved to or from a store: no more at once than the limits say."""
        store = self._stores.setdefault(device, asyncio.Semaphore(self._limits.per_store))
        # The store first: who waits for a slow one takes no place from the others.
        async with store, self._host:
            yield

    def begin(self, key: str) -> float:
        """Note that a guest's turn has come; the moment by the monotonic clock."""
        now = time.monotonic()
        result = self.results[key]
        if result.began_seconds is None:
            result.began_seconds = now - self._began
        return now

    def aside(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        """Have something done that no other guest waits for; `aside_done` does."""
        self._aside.append(asyncio.ensure_future(work))

    async def aside_done(self, *, interrupted: bool) -> bool:
        """Wait for all that was begun aside, having cancelled it where the run was
        ``interrupted``; whether it is then."""
        try:
            await asyncio.sleep(0)  # where a signal is heard that came in the middle of a step
        except asyncio.CancelledError:
            interrupted = True
        for work in self._aside:
            if interrupted:
                work.cancel()
        try:
            await all_of(self._aside)
        except asyncio.CancelledError:
            return True
        return interrupted

    @property
    def errors(self) -> list[str]:
        """Of the host itself, such as a journal that cannot be written, and of all guests."""
        own = [self.host_error] if self.host_error is not None else []
        return own + [
            f"{result.name}: {result.error}" for result in self.results.values() if result.error
        ]
