# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real QEMU guests that prove their own memory, for the integration tests.

One `QemuGuest` stands for one guest through its whole life: the QEMU it starts in, the QEMU it is
restored into (started here with ``start(incoming=True)``, or by a module from ``argv()``), and one
serial log that grows across both. `TinyGuest` runs the machine code of tiny_guest.py in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from qemu.qmp import ConnectError, QMPClient

from ansible_collections.vmfleet.suspend.playbooks.files.tiny_guest import (
    FIRMWARE_BYTES,
    MIB_BYTES,
    Pass,
    Ready,
    Regions,
    build,
    parse_line,
)

QEMU = "qemu-system-x86_64"
QEMU_MISSING = (
    f"{QEMU} is not in PATH, and these tests need a real one (QEMU >= 9.1). `make test` installs "
    "it; by hand: the Debian package qemu-system-x86, from backports where the release has an "
    "older one."
)
_MONITOR_SECONDS = 10.0
_POLL_SECONDS = 0.02
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class QemuGuest(ABC):
    """One guest on QEMU; what it boots and what it writes to its serial port are a subclass's.

    ``extra`` is appended to QEMU's arguments. ``name`` and ``guest_uuid`` None leave QEMU without
    them.
    """

    def __init__(
        self,
        tmp_path: Path,
        memory_mib: int,
        machine: str = "pc",
        extra: Sequence[str] = (),
        *,
        accelerator: str = "tcg",
        name: str | None,
        guest_uuid: str | None = "",
    ) -> None:
        self.memory_mib = memory_mib
        self.machine = machine
        self.extra = tuple(extra)
        self.accelerator = accelerator
        self.name = name
        self.uuid = str(uuid.uuid4()) if guest_uuid == "" else guest_uuid
        # A socket's path has room for 107 bytes, which pytest's directories can exceed.
        self.directory = Path(tempfile.mkdtemp(prefix="vmf"))
        self.qmp_socket = str(self.directory / "qmp")
        self.serial_path = Path(tempfile.mkdtemp(prefix="guest", dir=tmp_path)) / "serial"
        self.stderr_path = self.serial_path.with_name("stderr")
        self._child: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """As another process sees it."""
        return {**self.__dict__, "_child": None}

    @abstractmethod
    def boot_arguments(self) -> Sequence[str]:
        """The part of QEMU's arguments that says what the guest boots."""

    def argv(self, incoming: bool = False) -> list[str]:
        """QEMU's arguments; with ``incoming`` it waits for an image, vCPUs held."""
        identity = [*(["-name", self.name] if self.name else [])]
        identity += ["-uuid", self.uuid] if self.uuid else []
        return [
            QEMU,
            *identity,
            *("-accel", self.accelerator),
            *("-machine", self.machine),
            *("-m", str(self.memory_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *self.boot_arguments(),
            *("-chardev", f"file,id=serial0,path={self.serial_path},append=on"),
            *("-serial", "chardev:serial0"),
            *("-qmp", f"unix:{self.qmp_socket},server=on,wait=off"),
            *self.extra,
            *(("-incoming", "defer", "-S") if incoming else ()),
        ]

    def start(self, incoming: bool = False) -> Self:
        """Start QEMU and wait for its monitor. Raises AssertionError with QEMU's own words."""
        return self.run(self.argv(incoming))

    def run(self, argv: Sequence[str], **process: Any) -> Self:
        """As `start`, with a command line that listens on ``qmp_socket`` too.

        ``process``: what else Popen is to be told.
        """
        assert not self.alive(), f"process {self.pid} serves {self.qmp_socket} already"
        self._reap()
        Path(self.qmp_socket).unlink(missing_ok=True)  # left by a killed QEMU
        with self.stderr_path.open("ab") as stderr:
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, **process
            )
        child = self._child
        self._wait(lambda: self._listens() or child.poll() is not None, 10, "start")
        self.status()
        return self

    @property
    def serial_lines(self) -> list[str]:
        """What the guest has written to its serial port so far, whole lines only."""
        if not self.serial_path.exists():
            return []
        lines = self.serial_path.read_text("ascii", "replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    @property
    def pid(self) -> int:
        """The process that runs the guest now, whoever started it; LookupError when none does."""
        for pid in self._pids():
            return pid
        raise LookupError(f"no process serves {self.qmp_socket}")

    def freeze(self) -> None:
        """Stop its QEMU's process, whoever waits for that too (nsenter stops with it)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let both go on."""
        waiting = {self._child.pid} if self._child is not None else set()
        for pid in {self.pid} | waiting:
            os.kill(pid, signal.SIGCONT)

    def alive(self) -> bool:
        """Whether a QEMU of this guest is there, running its vCPUs or not."""
        # A process that was just started has no command line to be found by for a moment, even
        # after Popen has returned.
        started = self._child is not None and self._child.poll() is None
        return started or bool(self._pids())

    def wait_served(self, timeout_seconds: float = 30) -> None:
        """Wait until a QEMU that somebody else starts has its monitor."""
        end = time.monotonic() + timeout_seconds
        while not self._listens():
            assert time.monotonic() < end, f"nobody serves {self.qmp_socket}; {self._words()}"
            time.sleep(0.05)

    def wait_gone(self, timeout_seconds: float = 10) -> None:
        """Wait until QEMU has ended."""
        self._wait(lambda: not self.alive(), timeout_seconds, "end")

    def quit(self) -> None:
        """End this guest's QEMU as its monitor does, and wait until it is gone."""
        self.execute("quit")
        self.wait_gone()
        self._reap()

    def kill(self) -> None:
        """End this guest's QEMU at once."""
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._reap()
        self.wait_gone()
        # A process that ends has no command line any more, but still its sockets.
        self._wait(lambda: not self._listens(), 10, "end")

    def close(self) -> None:
        """End QEMU and remove what lies outside of ``tmp_path``."""
        self.kill()
        shutil.rmtree(self.directory)

    def status(self) -> str:
        """The run state, as query-status has it."""
        return str(self.execute("query-status")["status"])

    def hmp(self, command_line: str) -> str:
        """What the human monitor answers."""
        return str(self.execute("human-monitor-command", {"command-line": command_line}))

    def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run one QMP command over a connection of its own."""
        return asyncio.run(self._execute(command, arguments))

    async def _execute(self, command: str, arguments: dict[str, object] | None) -> Any:
        try:
            try:
                client = await self._connected()
            except ConnectError:  # an event for another client overtook the greeting
                client = await self._connected()
        except Exception as exc:
            raise AssertionError(f"no answer on {self.qmp_socket}: {exc}; {self._words()}") from exc
        try:
            return await asyncio.wait_for(client.execute(command, arguments), _MONITOR_SECONDS)
        finally:
            with contextlib.suppress(EOFError, OSError):  # QEMU hung up first: it was told to quit
                await asyncio.wait_for(client.disconnect(), _MONITOR_SECONDS)

    async def _connected(self) -> QMPClient:
        client = QMPClient("test-guest")
        await asyncio.wait_for(client.connect(self.qmp_socket), _MONITOR_SECONDS)
        return client

    def read_memory(self, address: int, length_bytes: int) -> bytes:
        """Guest-physical memory, read past the guest."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(self._host_address(address))
            return memory.read(length_bytes)

    def write_memory(self, address: int, data: bytes) -> None:
        """Change guest-physical memory behind the guest's back."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(self._host_address(address))
            memory.write(data)

    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used, its own and the kernel's for it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def _host_address(self, address: int) -> int:
        # The machine's RAM is the block at offset 0 of QEMU's ram_addr_t space, whatever its name;
        # guest addresses below 2 GiB are offsets into it.
        for row in self.hmp("info ramblock").splitlines()[1:]:
            _name, _size, _unit, offset, _used, _total, host_address, *_access = row.split()
            if int(offset, 16) == 0:
                return int(host_address, 16) + address
        raise LookupError("QEMU has no RAM block at offset 0")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # the file is there a moment earlier
            return probe.connect_ex(self.qmp_socket) == 0

    def _pids(self) -> list[int]:
        mark = f"unix:{self.qmp_socket},".encode()
        processes = ((path, _read(path)) for path in Path("/proc").glob("[0-9]*/cmdline"))
        return [
            int(path.parent.name)
            for path, words in processes
            # What only entered a host to start it has its words as well.
            if mark in words and not words.startswith(b"nsenter\0")
        ]

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait(10)
            self._child = None

    def _wait(self, condition: Callable[[], bool], timeout_seconds: float, doing: str) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if doing != "end" and not self.alive():
                raise AssertionError(f"the guest ended and did not {doing}; {self._words()}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"the guest did not {doing} within {timeout_seconds:g} s; {self._words()}"
                )
            time.sleep(_POLL_SECONDS)

    def _words(self) -> str:
        said = self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""
        return f"alive: {self.alive()}, last: {self.serial_lines[-1:]}, QEMU said: {said[-2000:]}"


# For many at once, which check less of their memory, and so leave the processors to the others.
ONE_OF_MANY: dict[str, Any] = {"pattern_mib": 4, "zero_mib": 2}
ONE_OF_A_FLEET: dict[str, Any] = {"pattern_mib": 1, "zero_mib": 1}  # too small for a slow save


class TinyGuest(QemuGuest):
    """A guest of ``memory_mib`` MiB of RAM, of which it fills and checks a part (in MiB).

    ``accelerator`` is tcg because a KVM that itself runs in a virtual machine may interpret the
    guest, hundreds of times slower.
    """

    def __init__(
        self,
        tmp_path: Path,
        memory_mib: int = 64,
        pattern_mib: int = 16,
        zero_mib: int = 16,
        machine: str = "pc",
        extra: Sequence[str] = (),
        *,
        accelerator: str = "tcg",
        name: str | None = "tiny",
        guest_uuid: str | None = "",
    ) -> None:
        self.regions = Regions(pattern_mib * MIB_BYTES, zero_mib * MIB_BYTES)
        if self.regions.end_bytes > memory_mib * MIB_BYTES - FIRMWARE_BYTES:
            raise ValueError(f"{pattern_mib} + {zero_mib} MiB do not fit into {memory_mib} MiB")
        super().__init__(
            tmp_path,
            memory_mib,
            machine,
            extra,
            accelerator=accelerator,
            name=name,
            guest_uuid=guest_uuid,
        )
        self.disk_path = self.directory / "disk"
        self.disk_path.write_bytes(build(self.regions.pattern_bytes, self.regions.zero_bytes))

    def boot_arguments(self) -> Sequence[str]:
        """One read-only disk."""
        return ("-drive", f"file={self.disk_path},format=raw,if=virtio,readonly=on")

    def wait_ready(self, timeout_seconds: float = 30) -> Ready:
        """Wait until the guest has filled its memory."""
        self._wait(lambda: bool(self.reports), timeout_seconds, "fill its memory")
        first = self.reports[0]
        assert isinstance(first, Ready), first
        return first

    def wait_passes(self, count: int, timeout_seconds: float = 60) -> list[Pass]:
        """Wait for further passes and return them. The first may have begun before the call."""
        before = len(self.passes)
        self._wait(lambda: len(self.passes) >= before + count, timeout_seconds, "make a pass")
        return self.passes[before:]

    @property
    def reports(self) -> list[Ready | Pass]:
        """What the guest has written to its serial port so far."""
        parsed = map(parse_line, self.serial_lines)
        return [report for report in parsed if report is not None]

    @property
    def passes(self) -> list[Pass]:
        """The passes over its memory that the guest has reported so far."""
        return [report for report in self.reports if isinstance(report, Pass)]

    @property
    def mismatches(self) -> list[Pass]:
        """The passes in which a dword was wrong."""
        return [report for report in self.passes if report.wrong_dwords]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
