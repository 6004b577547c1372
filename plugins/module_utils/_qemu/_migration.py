# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Running a migration to or from a file, to its end.

Events wake the wait, polls decide; ``completed`` is only believed when query-migrate says so
(spec/qemu.md 3.1, 3.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing as t
from dataclasses import dataclass

from .._errors import GuestLost, MigrationFailed, MonitorError, VmfleetError
from .._telling import tell_bytes
from .._uninterrupted import uninterrupted
from ._deadline import Deadline
from ._monitor import MigrationEvents, Monitor, MonitorLost
from ._process import ProcessIdentity, is_alive

_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 30.0
_SETTLE_SECONDS = 60.0
_FINISHING = "finish-migrate"
_ENDED = ("completed", "failed", "cancelled")
# QEMU 10.0 may die of a cancel while its channels write at full speed or are being made: 6 of 259
# saves within the first millisecond, none of 54 at this bandwidth after this pause.
_CALM_BYTES_PER_SECOND = 64 << 10
_CALM_SECONDS = 0.15


@dataclass(frozen=True)
class MigrationReport:
    """What QEMU counted. Pages are of the target's size; zero and absent where QEMU says nothing
    (a destination reports no counts)."""

    total_seconds: float
    transferred_bytes: int
    total_bytes: int
    normal_pages: int
    zero_pages: int

    @property
    def throughput_bytes_per_second(self) -> int:
        return int(self.transferred_bytes / self.total_seconds) if self.total_seconds else 0


def report_of(reply: t.Mapping[str, t.Any], seconds: float) -> MigrationReport:
    """Read a query-migrate reply; ``seconds`` is our own measure, from command to end."""
    ram = reply.get("ram", {})
    return MigrationReport(
        total_seconds=round(seconds, 3),
        transferred_bytes=ram.get("transferred", 0),
        total_bytes=ram.get("total", 0),
        normal_pages=ram.get("normal", 0),
        zero_pages=ram.get("duplicate", 0),
    )


def _tell(reply: t.Mapping[str, t.Any]) -> None:
    """How far a source is; a destination has no counts."""
    ram = reply.get("ram", {})
    if ram.get("total"):
        tell_bytes(ram["total"] - ram.get("remaining", 0), ram["total"])


def _completed(reply: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
    if reply["status"] != "completed":
        raise MigrationFailed(
            f"QEMU reports the migration as {reply['status']}: "
            f"{reply.get('error-desc', 'no reason given')}.",
            migration_status=reply["status"],
            qmp_error=reply.get("error-desc"),
        )
    return reply


class Migration:
    """One migration of one guest. ``process`` tells a broken link from a dead QEMU."""

    def __init__(self, monitor: Monitor, process: ProcessIdentity | None) -> None:
        self._monitor = monitor
        self._process = process

    async def run(
        self, command: str, arguments: t.Mapping[str, object], deadline: Deadline
    ) -> MigrationReport:
        """Issue ``migrate`` or ``migrate-incoming`` and wait for its end.

        Raises `QmpCommandError` when QEMU refuses at once, `MigrationFailed` with QEMU's words,
        `DeadlineExceeded` or CancelledError after a migration was cancelled, `GuestLost` when
        the QEMU process ended.
        """
        started = time.monotonic()
        try:
            reply = await self._run(command, arguments, deadline)
        except MonitorLost as exc:
            raise self._explained(exc, command) from exc
        return report_of(_completed(reply), time.monotonic() - started)

    async def join(self, deadline: Deadline) -> MigrationReport:
        """Wait for the end of a migration that another run began, or read how it ended. Raises as
        `run`; nothing is cancelled."""
        try:
            with self._monitor.migration_events() as events:
                reply = await self._end(events, "migrate", deadline)
        except MonitorLost as exc:
            raise self._explained(exc, "migrate") from exc
        return report_of(_completed(reply), reply.get("total-time", 0) / 1000)

    def _explained(self, lost: MonitorLost, command: str) -> VmfleetError:
        if self._process is None or is_alive(self._process):
            return lost
        return GuestLost(
            f"The QEMU process {self._process.pid} ended during {command}.", pid=self._process.pid
        )

    async def _run(
        self, command: str, arguments: t.Mapping[str, object], deadline: Deadline
    ) -> t.Mapping[str, t.Any]:
        with self._monitor.migration_events() as events:
            try:
                # A refused migrate leaves the previous result visible: only now may it be read.
                await self._ask(command, arguments, deadline)
                return await self._end(events, command, deadline)
            except BaseException as exc:
                if command == "migrate" and not isinstance(exc, MonitorError):
                    with contextlib.suppress(VmfleetError):  # the cause is what counts
                        await uninterrupted(self.cancel())
                raise

    async def _end(
        self, events: MigrationEvents, command: str, deadline: Deadline
    ) -> t.Mapping[str, t.Any]:
        while True:
            reply = await self._query(deadline)
            _tell(reply)
            if reply.get("status") in _ENDED:
                return reply
            deadline.check(f"QEMU was busy with {command}")
            await events.wait(deadline.at_most(_POLL_SECONDS))

    async def _query(self, deadline: Deadline) -> t.Mapping[str, t.Any]:
        try:
            return t.cast("t.Mapping[str, t.Any]", await self._ask("query-migrate", {}, deadline))
        except MonitorLost:
            if self._process is None or not is_alive(self._process):
                raise
        # QEMU goes on by itself when its client is gone (spec/qemu.md 3.5).
        await self._monitor.reconnect(deadline.at_most(10.0))
        return t.cast("t.Mapping[str, t.Any]", await self._ask("query-migrate", {}, deadline))

    async def _ask(
        self, command: str, arguments: t.Mapping[str, object], deadline: Deadline
    ) -> t.Any:
        """Wait for an answer as long as QEMU lives and the deadline allows: while it loads, QEMU's
        main loop answers nobody until all RAM is read."""
        read_before = self._read_bytes()
        asked = asyncio.ensure_future(
            self._monitor.execute(command, arguments, timeout_seconds=None)
        )
        try:
            while True:
                # Not cut short by the deadline: the last poll is worth its answer.
                await asyncio.wait([asked], timeout=_POLL_SECONDS)
                if asked.done():
                    return asked.result()
                self._tell_read(read_before)
                deadline.check(f"QEMU did not answer {command}")
                if self._process is not None and not is_alive(self._process):
                    raise MonitorLost(f"QEMU ended before it answered {command}.")
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def _read_bytes(self) -> int | None:
        """What QEMU has read so far, by the kernel's count; None where that is not to be seen."""
        if self._process is None:
            return None
        path = f"/proc/{self._process.pid}/io"
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as counts:
            return int(counts.readline().partition(":")[2])  # rchar comes first
        return None

    def _tell_read(self, before: int | None) -> None:
        """How much of its image a destination has read, while it answers nobody."""
        now = self._read_bytes()
        if before is not None and now is not None and now > before:
            tell_bytes(now - before, None)

    async def cancel(self) -> None:
        """Cancel what runs and wait until it has ended; harmless when nothing runs.

        A migration that ends by itself meanwhile is left to: the guest is in postmigrate then.
        """
        if await self._is_over():
            return
        calm = {"max-bandwidth": _CALM_BYTES_PER_SECOND}
        await self._monitor.execute("migrate-set-parameters", calm)
        await asyncio.sleep(_CALM_SECONDS)
        if await self._is_over():
            return
        await self._monitor.execute("migrate_cancel")
        end = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < end:
            if await self._is_over():
                return
            await asyncio.sleep(0.02)
        raise MigrationFailed(
            f"QEMU did not finish cancelling the migration within {_CANCEL_SECONDS:g} s."
        )

    async def _is_over(self) -> bool:
        status = (await self._monitor.execute("query-migrate")).get("status")
        if status == "completed":
            return str((await self._monitor.execute("query-status"))["status"]) != _FINISHING
        return status is None or status in _ENDED


async def wait_for_run_state(
    monitor: Monitor, wanted: t.Container[str], timeout_seconds: float = _SETTLE_SECONDS
) -> str:
    """Poll query-status until it is one of ``wanted``; returns it.

    After ``completed`` a source is briefly in finish-migrate (spec/qemu.md 0.9). Raises
    `MigrationFailed` naming the state it stayed in.
    """
    end = time.monotonic() + timeout_seconds
    while True:
        status = str((await monitor.execute("query-status"))["status"])
        if status in wanted:
            return status
        if time.monotonic() >= end:
            raise MigrationFailed(
                f"The guest stayed in run state {status} for {timeout_seconds:g} s.",
                run_state=status,
            )
        await asyncio.sleep(0.01)
