# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Comparing an image's pages with the RAM they were taken from, while QEMU still holds it.

Whole chunks are compared, several at a time: reading them and comparing equal ones is C code that
lets other threads run. Only a chunk that differs is looked into.
"""

from __future__ import annotations

import os
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .._saveimage._extents import holes

# Two buffers a thread should stay in the processor's cache: a quarter is as quick, ten times as
# much is half as quick.
_CHUNK_BYTES = 256 << 10
_MOST_THREADS = 4


@dataclass(frozen=True)
class RamRange:
    """One RAM block: its pages in the image and in QEMU's address space, both in bytes."""

    name: str
    pages_offset_bytes: int
    host_address: int
    length_bytes: int


@dataclass(frozen=True)
class Difference:
    """The first place where the image and the guest differ, in bytes."""

    ram_block: str
    block_offset_bytes: int
    file_offset_bytes: int


class _Chunk(t.NamedTuple):
    """``start_bytes`` within the block; ``hole``: the image has no data there, so zeros."""

    order: int
    ram: RamRange
    start_bytes: int
    length_bytes: int
    hole: bool


def _extents(image_fd: int, ram: RamRange) -> t.Iterator[tuple[int, int, bool]]:
    """Data and holes of one block in order, as offsets within the block."""
    first, position = ram.pages_offset_bytes, ram.pages_offset_bytes
    end = first + ram.length_bytes
    for start, stop in holes(image_fd, first, end):
        if start > position:
            yield position - first, start - first, False
        yield start - first, stop - first, True
        position = stop
    if position < end:
        yield position - first, ram.length_bytes, False


def _chunks(image_fd: int, ranges: t.Iterable[RamRange]) -> t.Iterator[_Chunk]:
    order = 0
    for ram in ranges:
        for start, end, hole in _extents(image_fd, ram):
            for position in range(start, end, _CHUNK_BYTES):
                yield _Chunk(order, ram, position, min(_CHUNK_BYTES, end - position), hole)
                order += 1


def _first_unequal(left: bytearray, right: bytearray) -> int:
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


class _Comparison:
    def __init__(self, image_fd: int, memory_fd: int, chunks: t.Iterator[_Chunk]) -> None:
        self._image_fd = image_fd
        self._memory_fd = memory_fd
        self._chunks = chunks
        self._lock = threading.Lock()
        self.found: list[tuple[int, Difference]] = []
        self.stop = threading.Event()

    def work(self) -> None:
        """One thread: compare the next chunk, and the next, until one differs anywhere."""
        saved, live = bytearray(_CHUNK_BYTES), bytearray(_CHUNK_BYTES)
        zeros = bytes(_CHUNK_BYTES)
        while not self.stop.is_set():
            with self._lock:
                chunk = next(self._chunks, None)
            if chunk is None:
                return
            if chunk.length_bytes != len(saved):
                saved, live = bytearray(chunk.length_bytes), bytearray(chunk.length_bytes)
                zeros = bytes(chunk.length_bytes)
            if chunk.hole:
                saved[:] = zeros
            else:
                self._read(self._image_fd, saved, chunk.ram.pages_offset_bytes + chunk.start_bytes)
            self._read(self._memory_fd, live, chunk.ram.host_address + chunk.start_bytes)
            if saved != live:
                self._note(chunk, _first_unequal(saved, live))

    def _read(self, fd: int, buffer: bytearray, offset_bytes: int) -> None:
        view, done = memoryview(buffer), 0
        while done < len(buffer):
            count = os.preadv(fd, [view[done:]], offset_bytes + done)
            if count == 0:
                raise OSError(f"nothing can be read at offset {offset_bytes + done}")
            done += count

    def _note(self, chunk: _Chunk, within_bytes: int) -> None:
        position = chunk.start_bytes + within_bytes
        difference = Difference(chunk.ram.name, position, chunk.ram.pages_offset_bytes + position)
        self.found.append((chunk.order, difference))
        self.stop.set()


def first_difference(
    image_fd: int, pid: int, ranges: t.Sequence[RamRange], stop: threading.Event | None = None
) -> Difference | None:
    """Compare every byte of every range; the first difference, or None.

    Absent pages are holes and read as zeros, so pages that should be zero are compared as well.
    ``stop`` ends the work early; the answer means nothing then. Raises OSError when the process's
    memory cannot be read from here (other user, no ptrace).
    """
    memory_fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        comparison = _Comparison(image_fd, memory_fd, _chunks(image_fd, ranges))
        comparison.stop = stop or comparison.stop
        threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        with ThreadPoolExecutor(threads) as pool:
            for work in [pool.submit(comparison.work) for _thread in range(threads)]:
                work.result()
    finally:
        os.close(memory_fd)
    return min(comparison.found)[1] if comparison.found else None
