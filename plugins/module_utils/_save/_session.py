# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""One save under way: the guest it holds, and the image it writes."""

from __future__ import annotations

import asyncio
import typing as t

from .._pipeline import Pipeline
from .._qemu._bookmark import Bookmark
from .._qemu._deadline import Deadline
from .._qemu._guest import Guest
from .._qemu._monitor import Monitor
from .._saveimage._publish import PartialImage
from .._uninterrupted import within
from ._hold import GuestHold
from ._plan import SavePlan

_Result = t.TypeVar("_Result")


class SaveSession(GuestHold):
    """``beginning``: everything before the stream, as written first; ``pipeline``: what QEMU writes
    into, where that is a pipe; ``label_before``: what the image was labelled before QEMU got
    it, None where that is not known."""

    def __init__(
        self,
        monitor: Monitor,
        guest: Guest,
        plan: SavePlan,
        image: PartialImage,
        beginning: bytes,
        bookmark: Bookmark,
        deadline: Deadline,
    ) -> None:
        super().__init__(monitor, guest, plan.negotiated.put_back, plan.was_running)
        self.plan = plan
        self.image = image
        self.beginning = beginning
        self.bookmark = bookmark
        self.deadline = deadline
        self.pipeline: Pipeline | None = None
        self.label_before: str | None = None
        self.warnings: list[str] = []

    @property
    def data_offset_bytes(self) -> int:
        """Where the stream begins in the image."""
        return len(self.beginning)

    async def in_time(self, work: t.Awaitable[_Result]) -> _Result:
        """Wait for ``work`` until the deadline."""
        try:
            return await within(self.deadline.remaining_seconds(), work)
        except asyncio.TimeoutError:
            raise self.deadline.exceeded(self.step) from None

    async def in_thread(self, work: t.Callable[[], _Result]) -> _Result:
        """Run blocking file work beside the event loop, so that signals and the deadline count."""
        return await self.in_time(asyncio.get_running_loop().run_in_executor(None, work))
