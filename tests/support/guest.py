# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real QEMU that runs the tiny guest, and the guest's own word on its memory."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import types
import typing as t
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.drive import qmp

QEMU = "qemu-system-x86_64"
_SOURCE = Path(__file__).resolve().parents[2] / "playbooks" / "files" / "tiny_guest.py"
_MIB = 1 << 20
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.02


def _load_source() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_guest", _SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_guest"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tiny_guest_source = _load_source()


def _wait(condition: t.Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while not condition():
        if time.monotonic() >= end:
            raise AssertionError(f"not within {_WAIT_SECONDS:g} s: {what}")
        time.sleep(_POLL_SECONDS)


class TinyGuest:
    """One guest, started and restarted in ``directory``; its serial log goes on across restarts.

    ``machine`` is the value of ``-machine``; ``extra`` are further arguments of QEMU.
    """

    def __init__(
        self,
        directory: Path,
        *,
        memory_mib: int = 64,
        pattern_mib: int = 16,
        zero_mib: int = 16,
        machine: str = "pc",
        extra: t.Sequence[str] = (),
        name: str = "tiny",
    ) -> None:
        if shutil.which(QEMU) is None:
            raise AssertionError(f"{QEMU} is not installed; `make test` installs it")
        self.directory = directory
        self.qmp_socket = directory / "qmp"
        self._serial_log = directory / "serial"
        self._disk = directory / "disk"
        self._memory_mib = memory_mib
        self._machine = machine
        self._extra = extra
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self.pattern_start_bytes: int = tiny_guest_source.DEFAULT_PATTERN_START_BYTES
        image = tiny_guest_source.build(pattern_mib * _MIB, zero_mib * _MIB)
        self._disk.write_bytes(image)

    def argv(self, *, incoming: bool = False) -> list[str]:
        """How QEMU is started; with ``incoming``, as a destination that waits."""
        waiting = ["-incoming", "defer", "-S"] if incoming else []
        return [
            QEMU,
            *("-accel", "tcg"),
            *("-name", self._name),
            *("-machine", self._machine),
            *("-m", str(self._memory_mib)),
            *("-display", "none"),
            *("-nodefaults", "-no-user-config"),
            *("-drive", f"file={self._disk},format=raw,if=virtio,readonly=on"),
            *("-chardev", f"file,id=serial0,path={self._serial_log},append=on"),
            *("-serial", "chardev:serial0"),
            *("-qmp", f"unix:{self.qmp_socket},server=on,wait=off"),
            *self._extra,
            *waiting,
        ]

    def start(self, *, incoming: bool = False) -> None:
        """Start QEMU and wait until its monitor listens."""
        assert not self.alive(), "the guest runs already"
        self._process = subprocess.Popen(
            self.argv(incoming=incoming),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "stderr").open("ab"),
        )
        self._pid = self._process.pid
        _wait(self.is_listening, f"QEMU listens on {self.qmp_socket}")

    def adopt(self, pid: int) -> None:
        """Take over a QEMU that the code under test started."""
        self._pid = pid

    @property
    def pid(self) -> int:
        assert self._pid is not None, "the guest was never started"
        return self._pid

    def is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.qmp_socket)) == 0

    def alive(self) -> bool:
        """Whether its QEMU runs; one that ended is reaped."""
        if self._process is not None and self._pid == self._process.pid:
            return self._process.poll() is None
        return self._pid is not None and _runs(self._pid)

    def kill(self) -> None:
        """End QEMU at once."""
        if self.alive():
            os.kill(self.pid, 9)
            _wait(lambda: not self.alive(), f"QEMU {self.pid} ends")

    @property
    def lines(self) -> list[t.Any]:
        """Everything it said on its serial port, parsed; firmware lines are left out."""
        with contextlib.suppress(FileNotFoundError):
            text = self._serial_log.read_text(encoding="latin-1")
            parsed = (tiny_guest_source.parse_line(line) for line in text.splitlines())
            return [line for line in parsed if line is not None]
        return []

    @property
    def passes(self) -> list[t.Any]:
        """Its passes over its memory so far, oldest first."""
        return [line for line in self.lines if isinstance(line, tiny_guest_source.Pass)]

    def wait_passes(self, count: int) -> None:
        """Wait until it has finished ``count`` more passes than it has now.

        A pass that began before a restore counts, so ask for two to see all memory read again.
        """
        wanted = len(self.passes) + count
        _wait(lambda: len(self.passes) >= wanted, f"{count} further passes")

    def wrong_dwords(self) -> int:
        """The most that any pass found wrong."""
        return max((report.wrong_dwords for report in self.passes), default=0)

    def qmp(self, command: str, **arguments: t.Any) -> t.Any:
        """One QMP command over a connection of its own."""
        return qmp(self.qmp_socket, command, **arguments)

    def status(self) -> str:
        """QEMU's run state."""
        return str(self.qmp("query-status")["status"])

    def hold_monitor(self) -> socket.socket:
        """Be the one client that the monitor serves, until the socket is closed."""
        holder = socket.socket(socket.AF_UNIX)
        holder.settimeout(10)
        holder.connect(str(self.qmp_socket))
        assert b"QMP" in holder.recv(65536)
        return holder


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rsplit(b")", 1)[1].split()[0] != b"Z"
    except OSError:
        return False
