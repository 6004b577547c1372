# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The bitmap of a mapped-ram block: which pages are in the image.

An array of the writing host's unsigned longs: on a little-endian host page i is bit i & 7 of byte
i >> 3; on a big-endian one the eight bytes of each word are reversed. The libvirt header in front
tells which (spec/qemu.md 1.4). No work is done page by page in Python.
"""

from __future__ import annotations

import array
import os
from dataclasses import dataclass

from .._errors import ImageInvalid
from ._stream import RamBlock

_ONES = bytes(bin(value).count("1") for value in range(256))
_INVERTED = bytes(range(255, -1, -1))


@dataclass(frozen=True)
class PageCounts:
    """Pages of one RAM block. Zero pages are absent from the image."""

    present: int
    zero: int


class Bitmap:
    """Bits in little-endian order: page i is bit i & 7 of byte i >> 3."""

    def __init__(self, data: bytes, page_count: int) -> None:
        self._data = data
        self._page_count = page_count

    def count(self) -> PageCounts:
        present = sum(self._data.translate(_ONES))
        return PageCounts(present, self._page_count - present)

    def first_beyond_end(self) -> int | None:
        """A bit that is set for a page that the block does not have; None when there is none."""
        return self.first_present(self._page_count, len(self._data) * 8)

    def first_present(self, start: int, end: int) -> int | None:
        """The first page in [start, end) that is present, or None."""
        return _first_set(self._data[start // 8 : -(-end // 8)], start, end)

    def first_absent(self, start: int, end: int) -> int | None:
        """The first page in [start, end) that is not in the image, or None."""
        part = self._data[start // 8 : -(-end // 8)]
        return _first_set(part.translate(_INVERTED), start, end)

    def last_present(self) -> int | None:
        """The last page that is present, or None."""
        return _last_set(self._data)

    def last_absent(self) -> int | None:
        """The last page that is not in the image, or None."""
        if self._page_count % 8 == 0:
            return _last_set(self._data[: self._page_count // 8].translate(_INVERTED))
        inverted = bytearray(self._data[: self._page_count // 8 + 1].translate(_INVERTED))
        inverted[-1] &= (1 << self._page_count % 8) - 1
        return _last_set(inverted)


def _last_set(data: bytes | bytearray) -> int | None:
    used = data.rstrip(b"\0")
    return (len(used) - 1) * 8 + used[-1].bit_length() - 1 if used else None


def _first_set(part: bytes, start: int, end: int) -> int | None:
    """``part``: the bytes that hold the bits [start, end) of a bitmap."""
    if start >= end:
        return None
    # Bits outside of [start, end) within the first and the last byte do not count.
    masked = bytearray(part)
    masked[0] &= 0xFF << (start % 8) & 0xFF
    if end % 8:
        masked[-1] &= (1 << end % 8) - 1
    skipped = len(masked) - len(masked.lstrip(b"\0"))
    if skipped == len(masked):
        return None
    byte = masked[skipped]
    return (start // 8 + skipped) * 8 + (byte & -byte).bit_length() - 1


def read_bitmap(fd: int, path: str, block: RamBlock, byte_order: str) -> Bitmap:
    """The bitmap of a mapped-ram block, in the byte order of the image's header.

    Raises `ImageInvalid` when it is cut short or marks pages that the block does not have.
    """
    offset, length = block.bitmap_offset_bytes, block.bitmap_bytes
    if offset is None or length is None:
        raise ValueError(f"RAM block {block.name} has no bitmap: the stream is sequential")
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise ImageInvalid(
            path, offset + len(data), f"the file ends within the bitmap of RAM block {block.name}"
        )
    if byte_order == "big":
        words = array.array("Q", data)
        words.byteswap()
        data = words.tobytes()
    bitmap = Bitmap(data, block.page_count)
    beyond = bitmap.first_beyond_end()
    if beyond is not None:
        raise ImageInvalid(
            path,
            offset,
            f"the bitmap of RAM block {block.name} marks page {beyond}, but the block has "
            f"{block.page_count}",
        )
    return bitmap
