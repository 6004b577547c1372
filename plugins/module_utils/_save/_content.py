# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Comparing an image's pages with the RAM they were taken from, while QEMU still holds it."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class RamRange:
    """One RAM block: its pages in the image and in QEMU's address space, both in bytes."""

    name: str
    pages_offset_bytes: int
    host_address: int
    length_bytes: int


@dataclass(frozen=True)
class Difference:
    """The first page-sized place where the image and the guest differ."""

    ram_block: str
    block_offset_bytes: int
    file_offset_bytes: int


def _first_unequal(left: bytes, right: bytes) -> int:
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _compare_range(image_fd: int, memory_fd: int, ram: RamRange) -> Difference | None:
    for start in range(0, ram.length_bytes, _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, ram.length_bytes - start)
        saved = os.pread(image_fd, size, ram.pages_offset_bytes + start)
        live = os.pread(memory_fd, size, ram.host_address + start)
        if saved != live:
            common = min(len(saved), len(live))
            within = _first_unequal(saved[:common], live[:common]) if common else 0
            return Difference(ram.name, start + within, ram.pages_offset_bytes + start + within)
    return None


def first_difference(image_fd: int, pid: int, ranges: t.Iterable[RamRange]) -> Difference | None:
    """Compare every byte of every range; the first difference, or None.

    Absent pages are holes and read as zeros, so pages that should be zero are compared as well.
    Raises OSError when the process's memory cannot be read from here (other user, no ptrace).
    """
    memory_fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for ram in ranges:
            difference = _compare_range(image_fd, memory_fd, ram)
            if difference is not None:
                return difference
    finally:
        os.close(memory_fd)
    return None
