# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux guest that also lives on a disk, so that what an image forgets of one can be seen.

On its ext4 the guest keeps three files:

``random``    random data, on the disk before the guest's memory is filled; read back, past the
              guest's page cache, on every pass.
``synced``    a numbered line per pass, a block long, followed by fsync: on the disk once the pass
              is reported.
``unsynced``  the same lines without fsync: in the guest's memory only, until the guest is told to
              stop and unmounts the disk.

`DISK_SCRIPT` writes lines to the serial port, `parse_disk_line` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.vmfleet.suspend.tests.support.cpio import Entry, directory, program
from ansible_collections.vmfleet.suspend.tests.support.ext4_disk import Ext4Disk
from ansible_collections.vmfleet.suspend.tests.support.linux_guest import (
    BEFORE_FILLING,
    LinuxFiles,
    LinuxGuest,
)

DISK_RANDOM_MIB = 16
_MEMORY_MIB = 320  # more than without a disk: where ext4 is a module, it takes some, its cache too
_SECTOR_BYTES = 512
_ORDERS_BYTES = 64 << 10  # the kernel looks for partitions there, and complains of a shorter disk
_LINE_BYTES = 4096  # a block: one that is on the disk is not written again with the next line
_STOP = "stop"

# A first program that ends is a panic, which ends QEMU: a disk that cannot be used is not overseen.
DISK_SCRIPT = f"""\
for module in $(ls /modules); do
    insmod "/modules/$module" || exit
done
mount -t devtmpfs dev /dev || exit
mount -t ext4 /dev/vda /disk || exit
# Only fsync and unmounting write to the disk, not the passing of time.
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
dd if=/dev/urandom of=/disk/random bs=1M count={DISK_RANDOM_MIB} 2>/dev/null
touch /disk/synced /disk/unsynced
set -- $(md5sum </disk/random)
echo "written $(($(stat -c %s /disk/random) >> 20)) $1"
# Nothing of this is left in the journal, from where it would be written again.
umount /disk
mount -t ext4 /dev/vda /disk || exit

told_to_stop() {{
    order=$(dd if=/dev/vdb bs={_SECTOR_BYTES} count=1 iflag=direct 2>/dev/null | tr -d '\\0')
    [ "$order" = {_STOP} ]
}}

use_disk() {{
    lines=0
    until told_to_stop; do
        lines=$((lines + 1))
        printf '%{_LINE_BYTES - 1}d\\n' $lines | tee -a /disk/unsynced >>/disk/synced
        sync /disk/synced
        set -- $(dd if=/disk/random bs=1M iflag=direct 2>/dev/null | md5sum)
        echo "disk $lines $1"
        sleep 0.2
    done
    umount /disk && echo "unmounted $lines"
}}
use_disk &
"""


@dataclass(frozen=True)
class Written:
    """The file is on the disk: so many MiB, with this checksum."""

    mib: int
    checksum: str


@dataclass(frozen=True)
class DiskPass:
    """Both logs have so many lines, and the file was read from the disk with this checksum."""

    lines: int
    checksum: str


@dataclass(frozen=True)
class Unmounted:
    """The guest has left the disk; both logs have so many lines."""

    lines: int


DiskReport = Written | DiskPass | Unmounted
_Kind = TypeVar("_Kind", Written, DiskPass, Unmounted)

_LINE = re.compile(
    r"written (?P<mib>\d+) (?P<data>[0-9a-f]{32})\n"
    r"|disk (?P<lines>\d+) (?P<checksum>[0-9a-f]{32})\n"
    r"|unmounted (?P<all>\d+)\n"
)


def parse_disk_line(line: str) -> DiskReport | None:
    """What a whole line of the serial port says; None for one that `DISK_SCRIPT` did not write."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    if match["mib"]:
        return Written(int(match["mib"]), match["data"])
    if match["lines"]:
        return DiskPass(int(match["lines"]), match["checksum"])
    return Unmounted(int(match["all"]))


def numbered_lines(count: int) -> bytes:
    """A log of ``count`` passes."""
    return b"".join(b"%*d\n" % (_LINE_BYTES - 1, number) for number in range(1, count + 1))


class LinuxDiskGuest(LinuxGuest):
    """A Linux with a qcow2 disk. ``options`` are those of `LinuxGuest`."""

    def __init__(
        self, tmp_path: Path, files: LinuxFiles, memory_mib: int = _MEMORY_MIB, **options: Any
    ) -> None:
        super().__init__(tmp_path, files, memory_mib, **options)
        self.disk = Ext4Disk(self.directory / "disk.qcow2")
        self.orders_path = self.directory / "orders"
        self.orders_path.write_bytes(bytes(_ORDERS_BYTES))

    def more_files(self) -> Sequence[Entry]:
        """The script for the disk, and the kernel's modules for it."""
        modules = [
            program(f"modules/{path.name}", path.read_bytes()) for path in self.files.modules
        ]
        script = program(BEFORE_FILLING, DISK_SCRIPT.encode())
        return (directory("disk"), directory("modules"), *modules, script)

    def boot_arguments(self) -> Sequence[str]:
        """Those of the guest without a disk, the disk, and one to write orders on."""
        disk = ("-drive", f"file={self.disk.path},format=qcow2,if=virtio")
        orders = ("-drive", f"file={self.orders_path},format=raw,if=virtio,readonly=on")
        return (*super().boot_arguments(), *disk, *orders)

    def wait_written(self, timeout_seconds: float = 120) -> str:
        """Wait until the file is on the disk and return its checksum."""
        self._wait(lambda: bool(self._disk_reported(Written)), timeout_seconds, "write its file")
        (written,) = self._disk_reported(Written)
        assert written.mib == DISK_RANDOM_MIB, written
        return written.checksum

    def wait_new_disk_pass(self, timeout_seconds: float = 60) -> DiskPass:
        """Wait for a pass that begins after the call."""
        wanted = len(self.disk_passes) + 2  # the first may have begun before
        self._wait(lambda: len(self.disk_passes) >= wanted, timeout_seconds, "use its disk")
        return self.disk_passes[wanted - 1]

    def leave_disk(self, timeout_seconds: float = 30) -> int:
        """Have the guest unmount the disk; return how many lines it has written to each log."""
        with self.orders_path.open("r+b") as orders:  # QEMU has it open
            orders.write(_STOP.encode())
        self._wait(lambda: bool(self._disk_reported(Unmounted)), timeout_seconds, "leave its disk")
        (unmounted,) = self._disk_reported(Unmounted)
        return unmounted.lines

    @property
    def disk_passes(self) -> list[DiskPass]:
        """All since the guest's boot."""
        return self._disk_reported(DiskPass)

    def understands(self, line: str) -> bool:
        """Whether a program of the guest's writes such lines."""
        return super().understands(line) or parse_disk_line(line) is not None

    def _disk_reported(self, kind: type[_Kind]) -> list[_Kind]:
        reports = map(parse_disk_line, self.serial_lines)
        return [report for report in reports if isinstance(report, kind)]
