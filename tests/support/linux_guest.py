# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux guest that checksums its own memory: Debian's kernel, a static busybox, no disk.

Its first program fills a tmpfs with random data and then, for ever, writes the data's checksum to
the serial port, while another process counts beside it. `INIT` writes the lines, `parse_line` reads
them. linux_disk.py gives it a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from ansible_collections.vmfleet.suspend.tests.support.cpio import (
    Entry,
    archive,
    character_device,
    directory,
    program,
)
from ansible_collections.vmfleet.suspend.tests.support.guest import QemuGuest

RANDOM_MIB = 200
_MEMORY_MIB = 288  # the data, and what the kernel needs to live
# A script that the first program runs before it fills its memory, where there is one.
BEFORE_FILLING = "before-filling"
# Without KASLR the data lie in the same place after every boot; a panic ends QEMU.
# The check of the timer complains on a machine whose processors are taken.
_KERNEL_ARGUMENTS = "console=ttyS0 quiet nokaslr panic=-1 no_timer_check"

# md5sum because it is the quickest that busybox has: 1.6 s for 200 MiB under TCG, where sha256sum
# takes 2.8 s. Nobody forges these data.
INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
[ ! -e /{BEFORE_FILLING} ] || . /{BEFORE_FILLING}
mount -t tmpfs -o size={RANDOM_MIB}m tmpfs /data
dd if=/dev/urandom of=/data/random bs=1M count={RANDOM_MIB} 2>/dev/null
set -- $(md5sum </data/random)
echo "filled $(($(stat -c %s /data/random) >> 20)) $1"

count() {{
    ticks=0
    while :; do
        ticks=$((ticks + 1))
        read uptime idle </proc/uptime
        echo "tick $ticks $uptime"
        sleep 0.2
    done
}}
count &

passes=0
while :; do
    passes=$((passes + 1))
    echo "begin $passes"
    set -- $(md5sum </data/random)
    echo "pass $passes $1"
    sleep 0.2
done
"""


@dataclass(frozen=True)
class Filled:
    """The data are there: so many MiB, with this checksum."""

    mib: int
    checksum: str


@dataclass(frozen=True)
class Begin:
    """A pass over the data begins."""

    number: int


@dataclass(frozen=True)
class Pass:
    """A pass over the data has ended with this checksum."""

    number: int
    checksum: str


@dataclass(frozen=True)
class Tick:
    """The other process counts; the kernel's uptime at that moment."""

    number: int
    uptime_seconds: float


Report = Filled | Begin | Pass | Tick
_Kind = TypeVar("_Kind", Filled, Begin, Pass, Tick)

_LINE = re.compile(
    r"filled (?P<mib>\d+) (?P<data>[0-9a-f]{32})\n"
    r"|begin (?P<begin>\d+)\n"
    r"|pass (?P<number>\d+) (?P<checksum>[0-9a-f]{32})\n"
    r"|tick (?P<tick>\d+) (?P<uptime>\d+\.\d\d)\n"
)


def parse_line(line: str) -> Report | None:
    """What a whole line of the serial port says; None for one that `INIT` did not write."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    if match["mib"]:
        return Filled(int(match["mib"]), match["data"])
    if match["begin"]:
        return Begin(int(match["begin"]))
    if match["number"]:
        return Pass(int(match["number"]), match["checksum"])
    return Tick(int(match["tick"]), float(match["uptime"]))


class LinuxFiles(NamedTuple):
    """What a Linux guest is made of, as tools/linux_guest.sh fetches it."""

    kernel: Path
    busybox: Path
    modules: Sequence[Path]  # in the order to load them in
    agent: Path

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Those in ``directory``."""
        modules = sorted((directory / "modules").iterdir())
        return cls(directory / "vmlinuz", directory / "busybox", modules, directory / "qemu-ga")


def initramfs(busybox: bytes, more: Iterable[Entry] = ()) -> bytes:
    """The file system that the guest boots into, for QEMU's -initrd; ``more`` lies in it too."""
    return archive(
        [
            *(directory(name) for name in ("bin", "data", "dev", "proc")),
            character_device("dev/console", 5, 1),
            character_device("dev/null", 1, 3),
            character_device("dev/urandom", 1, 9),
            program("bin/busybox", busybox),
            program("init", INIT.encode()),
            *more,
        ]
    )


class LinuxGuest(QemuGuest):
    """A Linux of ``memory_mib`` MiB."""

    def __init__(
        self,
        tmp_path: Path,
        files: LinuxFiles,
        memory_mib: int = _MEMORY_MIB,
        machine: str = "pc",
        extra: Sequence[str] = (),
        *,
        name: str | None = "linux",
    ) -> None:
        super().__init__(tmp_path, memory_mib, machine, extra, name=name)
        self.files = files
        self.initramfs_path = self.directory / "initramfs"
        content = initramfs(files.busybox.read_bytes(), self.more_files())
        self.initramfs_path.write_bytes(content)

    def more_files(self) -> Sequence[Entry]:
        """What lies in the first file system beside what every Linux guest needs."""
        return ()

    def boot_arguments(self) -> Sequence[str]:
        """The kernel, and the file system that its programs lie in."""
        files = ("-kernel", str(self.files.kernel), "-initrd", str(self.initramfs_path))
        return (*files, "-append", _KERNEL_ARGUMENTS)

    def wait_filled(self, timeout_seconds: float = 120) -> str:
        """Wait until the guest has its data and return their checksum."""
        self._wait(lambda: bool(self._reported(Filled)), timeout_seconds, "fill its memory")
        (filled,) = self._reported(Filled)
        assert filled.mib == RANDOM_MIB, filled
        return filled.checksum

    def wait_new_pass(self, timeout_seconds: float = 120) -> str:
        """Wait for the end of a pass that begins after the call and return its checksum."""
        begun = max((begin.number for begin in self._reported(Begin)), default=0)

        def done() -> list[str]:
            return [made.checksum for made in self._reported(Pass) if made.number > begun]

        self._wait(lambda: bool(done()), timeout_seconds, "make a pass")
        return done()[0]

    def wait_ticks(self, count: int, timeout_seconds: float = 30) -> list[Tick]:
        """Wait for ``count`` further ticks and return all since the guest's boot."""
        wanted = len(self._reported(Tick)) + count
        self._wait(lambda: len(self._reported(Tick)) >= wanted, timeout_seconds, "tick")
        return self._reported(Tick)

    @property
    def checksums(self) -> set[str]:
        """All that the passes so far ended with: one where nothing went wrong."""
        return {made.checksum for made in self._reported(Pass)}

    @property
    def complaints(self) -> list[str]:
        """Lines of the guest's that its programs did not write: its kernel's."""
        return [line for line in self.serial_lines if not self.understands(line)]

    def understands(self, line: str) -> bool:
        """Whether a program of the guest's writes such lines."""
        return parse_line(line) is not None

    def _reported(self, kind: type[_Kind]) -> list[_Kind]:
        reports = map(parse_line, self.serial_lines)
        return [report for report in reports if isinstance(report, kind)]
