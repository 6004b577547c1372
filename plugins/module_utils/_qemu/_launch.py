# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Starting the QEMU that will receive a guest.

asyncio kills a child that still runs when the event loop ends, which here would be the guest that
was just restored. So the child is a small launcher, and QEMU is the launcher's, in a session of
its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
import typing as t

from .._errors import MonitorError, Refused, VmfleetError
from ._deadline import Deadline
from ._monitor import Monitor
from ._process import ProcessIdentity, is_alive

# Tells QEMU's pid once its program was begun, then how it ended. Killed without harm to QEMU when
# nobody asks any more, and gone by itself when its reader is (POLLERR). Python ignores SIGPIPE, and
# a program would inherit that.
_LAUNCHER = """
import os, select, signal, sys
begun, begins = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as exc:
        os.write(2, f"{sys.argv[1]}: {exc.strerror}".encode())
    os._exit(127)
os.close(begins)
os.read(begun, 1)
print(child, flush=True)
reader = select.poll()
reader.register(1, 0)
ended = 0
while not ended:
    if reader.poll(20):
        os._exit(0)
    ended, status = os.waitpid(child, os.WNOHANG)
print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""
_START_SECONDS = 600.0
_OTHER_SECONDS = 60.0
_GREETING_SECONDS = 5.0
_END_SECONDS = 5.0
_STDERR_BYTES = 8192
_SYSTEM_MANAGER = "/run/systemd/private"
_USER_MANAGER = "/run/user/{}/systemd/private"


class LaunchFailed(VmfleetError):
    """QEMU ended, or its monitor did not appear."""


def systemd_prefix(systemd_runs: bool, user_id: int) -> tuple[str, ...]:
    """Words before argv that move QEMU out of the login's scope, which ends with the login.

    ``systemd_runs``: the manager that would own the scope can be reached, the system's for root
    and the user's own for others.
    """
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
    """A QEMU that this run started, its launcher and its standard error."""

    def __init__(self, pid: int, launcher: asyncio.subprocess.Process, stderr_fd: int) -> None:
        self.pid = pid
        self._launcher = launcher
        self._stderr_fd = stderr_fd
        self._end = asyncio.ensure_future(_read_number(launcher))

    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""
        return self._end.result() if self._end.done() else None

    def stderr_tail(self) -> str:
        """The end of what QEMU said: the only place where it explains a failed load."""
        size = os.fstat(self._stderr_fd).st_size
        tail = os.pread(self._stderr_fd, _STDERR_BYTES, max(0, size - _STDERR_BYTES))
        return tail.decode("utf-8", "replace").strip()

    async def end(self) -> None:
        """End the process. Its vCPUs must never have run."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._end.done():
                return
            os.kill(self.pid, number)
            await asyncio.wait([self._end], timeout=_END_SECONDS)

    async def let_go(self) -> None:
        """Stop watching; a QEMU that runs goes on."""
        self._end.cancel()
        await asyncio.gather(self._end, return_exceptions=True)
        if self._launcher.returncode is None:
            self._launcher.kill()
        await self._launcher.wait()
        os.close(self._stderr_fd)

    def describe_end(self) -> str:
        """How it ended and what it said, for an error message."""
        status = self.exit_status()
        how = f"was killed by signal {-status}" if status and status < 0 else f"exited {status}"
        said = self.stderr_tail()
        return f"QEMU {how}" + (f" and said: {said}" if said else " and said nothing")


async def _read_number(launcher: asyncio.subprocess.Process) -> int:
    if launcher.stdout is None:
        raise AssertionError("the launcher was started without a pipe")
    return int(await launcher.stdout.readline() or -signal.SIGKILL)


async def launch(argv: t.Sequence[str]) -> LaunchedQemu:
    """Start ``argv`` (no shell) with standard input and output closed off.

    Raises `Refused` when the program cannot be found.
    """
    user_id = os.geteuid()
    manager = _SYSTEM_MANAGER if user_id == 0 else _USER_MANAGER.format(user_id)
    prefix = systemd_prefix(os.path.exists(manager), user_id)
    command = [*prefix, resolve_program(argv[0]), *argv[1:]]
    with tempfile.TemporaryFile() as stderr:
        launcher = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LAUNCHER,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr.fileno(),
        )
        pid = await _read_number(launcher)
        return LaunchedQemu(pid, launcher, os.dup(stderr.fileno()))


async def wait_for_monitor(qemu: LaunchedQemu, qmp_socket: str, deadline: Deadline) -> Monitor:
    """Connect as soon as QEMU answers.

    It listens before its main loop runs; with much memory to allocate that takes a while. Raises
    `LaunchFailed` with QEMU's own words when it ends first, `DeadlineExceeded`, or `LaunchFailed`
    when it lives but does not answer for ten minutes.
    """
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            return await Monitor.connect(qmp_socket, deadline.at_most(_GREETING_SECONDS))
        except MonitorError as exc:
            if qemu.exit_status() is not None:
                raise LaunchFailed(
                    f"The QEMU to restore into did not start: {qemu.describe_end()}."
                ) from exc
            deadline.check(f"QEMU (pid {qemu.pid}) was starting")
            if time.monotonic() >= end:
                raise LaunchFailed(
                    f"QEMU runs (pid {qemu.pid}) but does not answer on {qmp_socket}."
                ) from exc
        await asyncio.sleep(0.02)


async def wait_for_other(process: ProcessIdentity, qmp_socket: str, deadline: Deadline) -> Monitor:
    """Connect to a QEMU that another run started, which may not listen yet.

    Raises `LaunchFailed` when it ends first, or lives but does not answer for a minute: perhaps
    its socket's file was removed, and a second QEMU must not take the first one's place.
    """
    end = time.monotonic() + _OTHER_SECONDS
    while True:
        try:
            return await Monitor.connect(qmp_socket, deadline.at_most(_GREETING_SECONDS))
        except MonitorError as exc:
            if not is_alive(process):
                raise LaunchFailed(
                    f"The QEMU process {process.pid}, started by another run with the same argv, "
                    "ended before it answered. Run the restore again."
                ) from exc
            deadline.check(f"the QEMU process {process.pid} of another run was starting")
            if time.monotonic() >= end:
                raise LaunchFailed(
                    f"The QEMU process {process.pid} runs with the same argv, but does not answer "
                    f"on {qmp_socket}. If it holds no guest that anybody needs, end it and run the "
                    "restore again."
                ) from exc
        await asyncio.sleep(0.02)
