# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What of a file is mapped into a process, and where (proc_pid_maps(5))."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
from dataclasses import dataclass

_LINE = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<access>[rwxsp-]{4}) (?P<offset>[0-9a-f]+) "
    r"[0-9a-f]+:[0-9a-f]+ (?P<inode>\d+)"
)


@dataclass(frozen=True)
class Mapping:
    """One range of addresses. ``private``: writes are copied and never reach the file."""

    start: int
    end: int
    private: bool
    file_offset_bytes: int
    inode: int


def parse_mapping(line: str) -> Mapping | None:
    """One line of /proc/PID/maps; None when it is something else."""
    found = _LINE.match(line)
    if found is None:
        return None
    return Mapping(
        start=int(found["start"], 16),
        end=int(found["end"], 16),
        private=found["access"].endswith("p"),
        file_offset_bytes=int(found["offset"], 16),
        inode=int(found["inode"]),
    )


def maps_privately(
    mappings: t.Iterable[Mapping], address: int, length_bytes: int, file_offset_bytes: int
) -> bool:
    """Whether [address, address + length) is, without a gap, the file from that offset on."""
    position, end = address, address + length_bytes
    for one in sorted(mappings, key=lambda mapping: mapping.start):
        if one.end <= position or one.start >= end:
            continue
        expected = file_offset_bytes + position - address
        actual = one.file_offset_bytes + position - one.start
        if one.start > position or not one.private or actual != expected:
            return False
        position = one.end
    return position >= end


def mappings_of(pid: int, status: os.stat_result) -> tuple[Mapping, ...]:
    """Where the process ``pid`` has this file mapped. Raises OSError where nobody may look."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        found = [mapping for mapping in map(parse_mapping, lines) if mapping is not None]
    return tuple(one for one in found if one.inode == status.st_ino and _is_file(pid, one, status))


def _is_file(pid: int, mapping: Mapping, status: os.stat_result) -> bool:
    """The device numbers of maps are not always those of stat (btrfs, overlayfs), so the file is
    looked at; where that needs more rights, the inode's number must do."""
    with contextlib.suppress(OSError):
        link = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        return os.path.samestat(os.stat(link), status)
    return True
