# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""One save under way: what it works on, and what it has touched so far."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
from dataclasses import dataclass, field

from .._errors import QmpCommandError
from .._pipeline import Pipeline
from .._qemu._deadline import Deadline
from .._qemu._fdset import take_back
from .._qemu._guest import Guest
from .._qemu._monitor import Monitor
from .._qemu._negotiation import Step
from .._saveimage._prefix import PrefixLayout
from .._saveimage._publish import PartialImage
from .._uninterrupted import within
from ._plan import SavePlan

STOP_SECONDS = 300.0

_Result = t.TypeVar("_Result")


@dataclass
class SaveSession:
    """``step`` names what goes on, for error messages; the fields after it say what an undo has
    to put back. ``stopped_at`` is monotonic time."""

    monitor: Monitor
    guest: Guest
    plan: SavePlan
    domain_xml: str
    image: PartialImage
    deadline: Deadline
    layout: PrefixLayout
    record: t.Mapping[str, t.Any]
    actions: list[str] = field(default_factory=list)
    step: str = "starting"
    negotiated: bool = False
    fdset_id: int | None = None
    stopped_at: float | None = None
    migrating: bool = False
    publishing: bool = False
    pipeline: Pipeline | None = None
    fd_name: str | None = None

    async def apply(self, steps: t.Iterable[Step]) -> None:
        """Send negotiated commands to QEMU, in order."""
        for step in steps:
            await self.monitor.execute(step.command, step.arguments)

    async def reset_qemu(self) -> None:
        """Take the fdset back and set capabilities and parameters as they were."""
        self.step = "putting QEMU's migration settings back"
        if self.fd_name is not None:
            # A migration that began has taken the name with it.
            with contextlib.suppress(QmpCommandError):
                await self.monitor.execute("closefd", {"fdname": self.fd_name})
            self.fd_name = None
        if self.fdset_id is not None:
            await take_back(self.monitor, self.fdset_id)
            self.fdset_id = None
        if self.negotiated:
            await self.apply(self.plan.negotiated.put_back)
            self.negotiated = False
            self.actions.append("put migration capabilities and parameters back")

    async def in_time(self, work: t.Awaitable[_Result]) -> _Result:
        """Wait for ``work`` until the deadline."""
        try:
            return await within(self.deadline.remaining_seconds(), work)
        except asyncio.TimeoutError:
            raise self.deadline.exceeded(self.step) from None

    async def in_thread(self, work: t.Callable[[], _Result]) -> _Result:
        """Run blocking file work beside the event loop, so that signals and the deadline count."""
        return await self.in_time(asyncio.get_running_loop().run_in_executor(None, work))
