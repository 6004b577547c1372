# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A guest that systemd runs: ending it so that it stays ended, and starting it to be loaded.

Sources: systemd.service(5), systemd.unit(5), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import asyncio
import os
import signal
import typing as t

from .._errors import Refused
from .._uninterrupted import uninterrupted
from ._deadline import Deadline
from ._launch import LaunchFailed, resolve_program
from ._process import ProcessIdentity, identify, is_alive
from ._systemctl import SystemdError, items_of, properties, systemctl
from ._systemd_drop_in import drop_in_path, remove_drop_in, write_drop_in
from ._systemd_unit import Unit

_POLL_SECONDS = 0.05
# systemd ends what does not end by itself after TimeoutStopSec=, 90 s where nothing else is set.
_STOP_SECONDS = 300.0
_START_SECONDS = 600.0
_SETTLE_SECONDS = 120.0
_ENDED = ("inactive", "failed")
_CLD_EXITED = "1"


async def stop(unit: Unit) -> None:
    """End the unit and everything in it, so that it stays ended, and remove what a killed restore
    left of its drop-in file. Nothing happens to a unit that does not run.

    Raises `SystemdError` when it does not end within five minutes; the file is then still there,
    because without it systemd would start the unit again once it ends.
    """
    await begin_stop(unit)
    await finish_stop(unit)


async def begin_stop(unit: Unit) -> None:
    """Ask for the end. From now on systemd does not start the unit again, whoever ends it, so that
    QEMU may be told to quit: an ``ExecStop=`` may wait for a guest that is saved and never ends."""
    await systemctl(unit, "stop", "--no-block", "--", unit.name)


async def finish_stop(unit: Unit) -> None:
    """Wait for the end that `begin_stop` asked for; the rest of `stop`."""
    try:
        await _wait_for(unit, _is_over, Deadline(_STOP_SECONDS), "ending")
    except _Late as late:
        raise SystemdError(
            f"systemd was told to stop {unit}, but it did not end within {_STOP_SECONDS:g} s "
            f"({late}). See `systemctl status {unit.name}`."
        ) from None
    if os.path.exists(drop_in_path(unit)):
        await _remove(unit)


async def _remove(unit: Unit) -> None:
    remove_drop_in(unit)
    await systemctl(unit, "daemon-reload")


class _Late(Exception):
    """A unit did not come into the wanted state."""


def _is_over(now: t.Mapping[str, str]) -> bool:
    # With a job it has yet to begin, or to end.
    return now["ActiveState"] in _ENDED and not now["Job"].strip("0")


async def _wait_for(
    unit: Unit,
    wanted: t.Callable[[t.Mapping[str, str]], bool],
    deadline: Deadline,
    doing: str,
) -> t.Mapping[str, str]:
    while True:
        now = await properties(unit)
        if wanted(now):
            return now
        if deadline.remaining_seconds() == 0:
            raise _Late(f"it is still {doing}: {now['ActiveState']}, {now['SubState']}")
        await asyncio.sleep(_POLL_SECONDS)


class UnitQemu:
    """A QEMU that this run started through a unit; what `LaunchedQemu` is for one without.

    ``unit`` has a drop-in file until `settle` or `end`.
    """

    def __init__(self, unit: Unit, process: ProcessIdentity) -> None:
        self.unit = unit
        self.pid = process.pid
        self.notes: tuple[str, ...] = ()
        self._process = process
        self._end = asyncio.ensure_future(_status_of_end(unit, process))

    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""
        return self._end.result() if self._end.done() else None

    def stderr_tail(self) -> str:
        """Where to read what QEMU said: systemd has it."""
        user = "" if self.unit.user_id is None else "--user "
        return f"`journalctl {user}--unit {self.unit.name}` has its words"

    def describe_end(self) -> str:
        """How it ended, for an error message."""
        status = self.exit_status()
        how = f"was killed by signal {-status}" if status and status < 0 else f"exited {status}"
        return f"QEMU {how} under {self.unit}; {self.stderr_tail()}"

    async def settle(self) -> None:
        """See `settle`."""
        await settle(self.unit, self.pid)

    async def end(self) -> None:
        """Stop the unit, which is then as it was. The vCPUs must never have run."""
        await stop(self.unit)

    async def let_go(self) -> None:
        """Stop watching; a QEMU that runs goes on."""
        self._end.cancel()
        await asyncio.gather(self._end, return_exceptions=True)


async def _status_of_end(unit: Unit, process: ProcessIdentity) -> int:
    while is_alive(process):
        await asyncio.sleep(_POLL_SECONDS)
    try:
        now = await _wait_for(
            unit,
            lambda now: now["MainPID"] != str(process.pid),
            Deadline(_SETTLE_SECONDS),
            "ending",
        )
    except (_Late, SystemdError, Refused):
        return -signal.SIGKILL
    status = int(now["ExecMainStatus"] or 0)
    return status if now["ExecMainCode"] == _CLD_EXITED else -status


async def start_with(unit: Unit, argv: t.Sequence[str], deadline: Deadline) -> UnitQemu:
    """Start the unit with ``argv`` in place of its ``ExecStart=``, without ``Restart=``. All else
    is the unit's own: user, directory, limits, ``ExecStartPre=`` and ``ExecStartPost=``.

    A drop-in file that a killed run left is replaced. Raises `Refused` before anything starts when
    the unit cannot be started so, `LaunchFailed` when QEMU does not start, `DeadlineExceeded`,
    `SystemdError`; after each of them the unit is stopped and as it was.
    """
    unit = await _startable(unit)
    words = [os.path.abspath(resolve_program(argv[0])), *argv[1:]]
    path = write_drop_in(unit, words)
    try:
        await systemctl(unit, "daemon-reload")
        _require_in_force(unit, path, await properties(unit))
        await systemctl(unit, "start", "--no-block", "--", unit.name)
        return UnitQemu(unit, await _started(unit, deadline))
    except BaseException:
        await uninterrupted(stop(unit))
        raise


async def _startable(unit: Unit) -> Unit:
    now = await properties(unit)
    if now["LoadState"] != "loaded":
        raise Refused(
            f"The guest cannot be started as {unit}, which systemd could not load "
            f"({now['LoadState']}). Install, unmask or mend its file, or give another "
            "systemd_unit; a unit that systemd-run made is gone once it was stopped."
        )
    if not _is_over(now):
        raise Refused(
            f"The guest cannot be started as {unit}: that runs already ({now['ActiveState']}, main "
            f"process {now['MainPID']}). If what it runs may end, `systemctl stop {now['Id']}`, "
            "and restore again."
        )
    return Unit(now["Id"], unit.user_id)


def _require_in_force(unit: Unit, path: str, now: t.Mapping[str, str]) -> None:
    files = now["DropInPaths"]
    # The last one read wins.
    if items_of(files)[-1:] != [path]:
        raise Refused(
            f"systemd reads other files of {unit} after {path}, and they may give it another "
            f"command line ({files or 'it does not read this one at all'}). Rename those that "
            "come later in the order of their names."
        )
    if (now["LoadState"], now["Type"], now["Restart"]) != ("loaded", "exec", "no"):
        raise Refused(
            f"The systemd of this host does not take the command line that {unit} was given for "
            f"the restore (LoadState={now['LoadState']}, Type={now['Type']}, "
            f"Restart={now['Restart']}). It needs systemd 240 or newer; `journalctl --unit "
            f"{unit.name}` says more. Or leave systemd_unit out."
        )


async def _started(unit: Unit, deadline: Deadline) -> ProcessIdentity:
    limit = Deadline(_START_SECONDS)
    while True:
        now = await properties(unit)
        # start-post: the program runs, and so does an ExecStartPost=, which may wait for the guest.
        if now["SubState"] in ("running", "start-post"):
            process = identify(int(now["MainPID"]))
            if process is not None:
                return process
        if _is_over(now):
            raise LaunchFailed(
                f"systemd did not start QEMU as {unit}: {now['Result']}, exit status "
                f"{now['ExecMainStatus'] or 0}. `systemctl status {unit.name}` and `journalctl "
                f"--unit {unit.name}` say more."
            )
        deadline.check(f"systemd was starting {unit}")
        if limit.remaining_seconds() == 0:
            raise LaunchFailed(
                f"{unit} has not started within {_START_SECONDS:g} s ({now['ActiveState']}, "
                f"{now['SubState']}). See `systemctl status {unit.name}`."
            )
        await asyncio.sleep(_POLL_SECONDS)


async def settle(unit: Unit, pid: int) -> None:
    """Give the unit back its own settings, ``Restart=`` among them, with the QEMU ``pid`` as its
    main process. For a guest that was loaded; also by the run after one that was killed.

    Raises `SystemdError` when the unit is not up within two minutes, its drop-in file still there,
    or systemd no longer has this process as the main one.
    """
    path = drop_in_path(unit)
    try:
        # Before that, the time since the start would count against the unit's own TimeoutStartSec=.
        await _wait_for(
            unit,
            lambda now: now["SubState"] == "running" or _is_over(now),
            Deadline(_SETTLE_SECONDS),
            "starting",
        )
    except _Late as late:
        raise SystemdError(
            f"The guest runs, but {unit} is not up ({late}); see its ExecStartPost=. Until then "
            f"systemd would start it waiting for an image: remove {path} and run `systemctl "
            "daemon-reload` once it is up."
        ) from None
    await _remove(unit)
    now = await properties(unit)
    if (now["ActiveState"], now["MainPID"]) != ("active", str(pid)):
        raise SystemdError(
            f"systemd does not have the guest's QEMU ({pid}) as the main process of {unit}, but "
            f"{now['MainPID']} ({now['ActiveState']}). See `systemctl status {unit.name}`."
        )
