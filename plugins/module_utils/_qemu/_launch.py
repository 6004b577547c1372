# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Starting the QEMU that will receive a guest.

The process gets a session of its own and outlives this program. It is started with posix_spawn:
asyncio's own subprocess transport kills its child when the event loop ends, which here would be
the guest that was just restored.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
import typing as t

from .._errors import Refused, VmfleetError
from ._deadline import Deadline
from ._monitor import Monitor, NoListener
from ._process import identify, wait_for_exit

_START_SECONDS = 60.0
_STDERR_BYTES = 8192
_SYSTEMD_RUNTIME = "/run/systemd/system"


class LaunchFailed(VmfleetError):
    """QEMU ended, or its monitor did not appear."""


def systemd_prefix(systemd_runs: bool, user_id: int) -> tuple[str, ...]:
    """Words before argv that move QEMU out of the login's scope, which ends with the login."""
    if not systemd_runs:
        return ()
    manager = () if user_id == 0 else ("--user",)
    return ("systemd-run", *manager, "--scope", "--quiet", "--collect", "--")


def resolve_program(program: str) -> str:
    """Absolute path of the program; raises `Refused` when it cannot be run."""
    found = shutil.which(program)
    if found is None:
        raise Refused(
            f"The program {program} does not exist on this host or cannot be executed. Install "
            "QEMU (Debian: qemu-system-x86), or give its full path as the first word of argv."
        )
    return found


class LaunchedQemu:
    """A QEMU that this run started, and its standard error."""

    def __init__(self, pid: int, stderr_fd: int) -> None:
        self.pid = pid
        self._stderr_fd = stderr_fd
        self._exit_status: int | None = None

    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""
        if self._exit_status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                signalled = os.WIFSIGNALED(status)
                self._exit_status = -os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
        return self._exit_status

    def stderr_tail(self) -> str:
        """The end of what QEMU said: the only place where it explains a failed load."""
        size = os.fstat(self._stderr_fd).st_size
        tail = os.pread(self._stderr_fd, _STDERR_BYTES, max(0, size - _STDERR_BYTES))
        return tail.decode("utf-8", "replace").strip()

    async def end(self) -> None:
        """End the process and reap it. Its vCPUs must never have run."""
        if self.exit_status() is not None:
            return
        process = identify(self.pid)
        os.kill(self.pid, signal.SIGTERM)
        if process is not None and not await wait_for_exit(process, 5):
            os.kill(self.pid, signal.SIGKILL)
            await wait_for_exit(process, 5)
        self.exit_status()

    def close(self) -> None:
        os.close(self._stderr_fd)

    def describe_end(self) -> str:
        status = self.exit_status()
        how = f"was killed by signal {-status}" if status and status < 0 else f"exited {status}"
        said = self.stderr_tail()
        return f"QEMU {how}" + (f" and said: {said}" if said else " and said nothing")


def launch(argv: t.Sequence[str]) -> LaunchedQemu:
    """Start ``argv`` (no shell) with standard input and output closed off.

    Raises `Refused` when the program cannot be found or run.
    """
    prefix = systemd_prefix(os.path.isdir(_SYSTEMD_RUNTIME), os.geteuid())
    command = [*prefix, resolve_program(argv[0]), *argv[1:]]
    with tempfile.TemporaryFile() as stderr:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr.fileno(), 2),
        ]
        try:
            pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
            )
        except OSError as exc:
            raise Refused(f"Could not start {command[0]}: {exc.strerror}.") from exc
        return LaunchedQemu(pid, os.dup(stderr.fileno()))


async def wait_for_monitor(qemu: LaunchedQemu, qmp_socket: str, deadline: Deadline) -> Monitor:
    """Connect as soon as QEMU listens.

    Raises `LaunchFailed` with QEMU's own words when it ends first or never listens.
    """
    end = time.monotonic() + deadline.at_most(_START_SECONDS)
    while True:
        if qemu.exit_status() is not None:
            raise LaunchFailed(f"The QEMU to restore into did not start: {qemu.describe_end()}.")
        try:
            return await Monitor.connect(qmp_socket)
        except NoListener as exc:
            if time.monotonic() >= end:
                raise LaunchFailed(
                    f"QEMU runs (pid {qemu.pid}) but does not listen on {qmp_socket}."
                ) from exc
        await asyncio.sleep(0.02)
