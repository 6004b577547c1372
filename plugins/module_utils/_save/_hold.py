# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a run has done to a guest so far, and how to put it back.

Another run can do so as well: it finds a `GuestHold` again from what a dead run left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing as t

from .._errors import MonitorError, QmpCommandError, VmfleetError
from .._qemu._fdset import take_back
from .._qemu._guest import Guest
from .._qemu._migration import Migration, wait_for_run_state
from .._qemu._monitor import Monitor
from .._qemu._negotiation import Step
from .._qemu._process import is_alive
from .._telling import Steps

STOP_SECONDS = 300.0
_SETTLE_SECONDS = 10.0
CRASHED = "crashed"
UNKNOWN = "unknown"


class GuestHold(Steps):
    """``step`` names what goes on, for error messages; ``was_running``: the guest is continued when
    it is released; the fields after it say what there is to put back. ``stopped_at`` is monotonic
    time."""

    def __init__(
        self, monitor: Monitor, guest: Guest, settings_before: tuple[Step, ...], was_running: bool
    ) -> None:
        self.monitor = monitor
        self.guest = guest
        self.settings_before = settings_before
        self.was_running = was_running
        self.actions: list[str] = []
        self.negotiated = False
        self.fdset_id: int | None = None
        self.fd_name: str | None = None
        self.stopped_at: float | None = None
        self.migrating = False

    async def apply(self, steps: t.Iterable[Step]) -> None:
        """Send negotiated commands to QEMU, in order."""
        for step in steps:
            await self.monitor.execute(step.command, step.arguments)

    async def reset_qemu(self) -> None:
        """Set capabilities and parameters as they were. The fdset stays: see `forget`."""
        self.step = "putting QEMU's migration settings back"
        if self.fd_name is not None:
            # A migration that began has taken the name with it.
            with contextlib.suppress(QmpCommandError):
                await self.monitor.execute("closefd", {"fdname": self.fd_name})
            self.fd_name = None
        if self.negotiated:
            await self.apply(self.settings_before)
            self.negotiated = False
            self.actions.append("put migration capabilities and parameters back")

    async def forget(self) -> None:
        """Take the fdset back, once nothing is left to do: its bookmark tells other runs that there
        is."""
        self.step = "taking the image back from QEMU"
        if self.fdset_id is not None:
            await take_back(self.monitor, self.fdset_id)
            self.fdset_id = None

    async def cancel(self) -> None:
        """End a migration that is under way; no more is written then."""
        if self.migrating:
            await Migration(self.monitor, self.guest.process).cancel()
            self.migrating = False

    async def continue_guest(self, timeout_seconds: float = _SETTLE_SECONDS) -> None:
        """Let the vCPUs run and see that they do."""
        await self.monitor.execute("cont", timeout_seconds=STOP_SECONDS)
        await wait_for_run_state(self.monitor, ("running",), timeout_seconds)
        self.actions.append("continued the guest")

    async def release(self, before_continuing: t.Callable[[], bool]) -> str:
        """Cancel, reset and continue; returns the state the guest is in now.

        ``before_continuing`` is called once QEMU writes no more, and says whether the guest may
        continue. A failure on the way is noted in the actions; it does not keep the guest from
        going on.
        """
        process = self.guest.process
        try:
            if process is not None and not is_alive(process):
                before_continuing()
                return CRASHED
            await self.ensure_link()
            await self._try("cancel the migration", self.cancel())
            may_continue = before_continuing()
            await self._try("put QEMU's migration settings back", self.reset_qemu())
            if self.stopped_at is not None and self.was_running and may_continue:
                await self._try("continue the guest", self.continue_guest())
            if may_continue:
                await self._try("take the image back from QEMU", self.forget())
            return str((await self.monitor.execute("query-status"))["status"])
        except VmfleetError:
            return UNKNOWN if process is None or is_alive(process) else CRASHED

    async def _try(self, what: str, work: t.Awaitable[None]) -> None:
        try:
            await work
        except VmfleetError as exc:
            self.actions.append(f"could not {what}: {exc.message}")

    async def ensure_link(self) -> None:
        """A QEMU that stalls, on its disks perhaps, is waited for: only its monitor can continue
        the guest."""
        process, end = self.guest.process, time.monotonic() + STOP_SECONDS
        while True:
            try:
                await self.monitor.execute("query-status", timeout_seconds=_SETTLE_SECONDS)
                return
            except MonitorError:
                if process is not None and not is_alive(process):
                    raise
            try:
                await self.monitor.reconnect()
            except MonitorError:
                if time.monotonic() >= end or (process is not None and not is_alive(process)):
                    raise
                await asyncio.sleep(1)
