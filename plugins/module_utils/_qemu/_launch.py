# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Starting the QEMU that will receive a guest.

asyncio kills a child that still runs when the event loop ends, which here would be the guest that
was just restored. So the child is a small launcher, and QEMU is the launcher's, in a session of
its own (`_launcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import typing as t

from .._errors import MonitorError, Refused, VmfleetError
from ._deadline import Deadline
from ._launcher import LAUNCHER, stage_input, stage_words
from ._monitor import Monitor
from ._process import ProcessIdentity, is_alive
from ._secrets import hide, hide_in, secrets_in
from ._setting import choose_setting
from ._surroundings import Surroundings

_START_SECONDS = 600.0
_OTHER_SECONDS = 60.0
_GREETING_SECONDS = 5.0
_END_SECONDS = 5.0
_STDERR_CHARACTERS = 8192
# More than is passed on, so that no secret is cut in two.
_READ_BYTES = 1 << 20
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


def login_prefix() -> tuple[str, ...]:
    """Words before a program that shall outlive the login that this run belongs to."""
    user_id = os.geteuid()
    manager = _SYSTEM_MANAGER if user_id == 0 else _USER_MANAGER.format(user_id)
    return systemd_prefix(os.path.exists(manager), user_id)


def resolve_program(program: str) -> str:
    """Absolute path of the program; raises `Refused` when it cannot be run."""
    found = shutil.which(program)
    if found is None:
        raise Refused(
            f"The program {program} does not exist on this host or cannot be executed. Install "
            "QEMU (Debian: qemu-system-x86), or give its full path as the first word of argv."
        )
    return found


class StartedQemu(t.Protocol):
    """What is asked of a QEMU that is being started, whoever started it."""

    pid: int

    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""

    def describe_end(self) -> str:
        """How it ended and what it said, for an error message."""


class LaunchedQemu:
    """A QEMU that this run started, its launcher and its standard error.

    ``notes``: what about its surroundings is not as it was recorded, in sentences.
    """

    def __init__(
        self,
        pid: int,
        launcher: asyncio.subprocess.Process,
        stderr_fd: int,
        notes: tuple[str, ...] = (),
        secrets: frozenset[str] = frozenset(),
    ) -> None:
        self.pid = pid
        self.notes = notes
        self._secrets = secrets
        self._launcher = launcher
        self._stderr_fd = stderr_fd
        self._end = asyncio.ensure_future(_read_number(launcher))

    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""
        return self._end.result() if self._end.done() else None

    def stderr_tail(self) -> str:
        """The end of what QEMU said: the only place where it explains a failed load.

        It quotes its own command line there, so secrets are hidden.
        """
        size = os.fstat(self._stderr_fd).st_size
        read = os.pread(self._stderr_fd, _READ_BYTES, max(0, size - _READ_BYTES))
        said = hide_in(hide(read.decode("utf-8", "replace"), self._secrets))
        return said[-_STDERR_CHARACTERS:].strip()

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
            with contextlib.suppress(ProcessLookupError):  # it may have ended a moment ago
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


async def launch(argv: t.Sequence[str], surroundings: Surroundings | None = None) -> LaunchedQemu:
    """Start ``argv`` (no shell) with standard input and output closed off.

    It runs as this run does, or in these surroundings. Raises `Refused`, before anything starts,
    when the program cannot be found or the surroundings cannot be had; `LaunchFailed` when not even
    the launcher could work.
    """
    program = resolve_program(argv[0])
    secrets = secrets_in(argv)
    prefix = login_prefix()
    if surroundings is None:
        return await _launched("direct", (*prefix, program, *argv[1:]), secrets=secrets)
    setting = choose_setting(surroundings)
    given = stage_input(
        (os.path.abspath(program), *argv[1:]),
        cwd=setting.cwd,
        environment=setting.environment,
        umask=setting.umask,
        limits=setting.limits,
        credentials=setting.credentials,
    )
    # The scope is asked for by this run, which may; what becomes QEMU gives its rights up in it.
    words = (*prefix, *stage_words(sys.executable))
    return await _launched("staged", words, given, setting.notes, secrets=secrets)


async def _launched(
    way: str,
    command: t.Sequence[str],
    given: bytes | None = None,
    notes: tuple[str, ...] = (),
    *,
    secrets: frozenset[str],
) -> LaunchedQemu:
    with tempfile.TemporaryFile() as stderr:
        launcher = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            LAUNCHER,
            way,
            *command,
            stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr.fileno(),
        )
        if given is not None and launcher.stdin is not None:
            launcher.stdin.write(given)
            launcher.stdin.close()
        pid = await _read_number(launcher)
        if pid < 0:
            await launcher.wait()
            said = os.pread(stderr.fileno(), _READ_BYTES, 0).decode("utf-8", "replace").strip()
            raise LaunchFailed(f"The launcher of QEMU ended before it began one: {said}.")
        return LaunchedQemu(pid, launcher, os.dup(stderr.fileno()), notes, secrets)


async def wait_for_monitor(qemu: StartedQemu, qmp_socket: str, deadline: Deadline) -> Monitor:
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
