# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""File holes: where a file has no data of its own (lseek(2), SEEK_HOLE and SEEK_DATA).

A page that the bitmap calls present but that lies in a hole was never written: with multifd QEMU
ignores a short write and reports success (spec/qemu.md 0.2).
"""

from __future__ import annotations

import errno
import os
import typing as t

from ._bitmap import Bitmap
from ._stream import RamBlock


def _seek(fd: int, position: int, whence: int, otherwise: int) -> int:
    """lseek(2); ``otherwise`` when there is none of that kind behind ``position``."""
    try:
        return os.lseek(fd, position, whence)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return otherwise


def holes(fd: int, start_bytes: int, end_bytes: int) -> t.Iterator[tuple[int, int]]:
    """Holes within [start, end), as file offsets; one step per extent.

    What lies behind the file's end is a hole. A filesystem that does not know holes shows no other.
    """
    position = start_bytes
    while position < end_bytes:
        hole = _seek(fd, position, os.SEEK_HOLE, position)
        if hole >= end_bytes:
            return
        data = min(_seek(fd, hole, os.SEEK_DATA, end_bytes), end_bytes)
        yield hole, data
        position = data


def data_extents(fd: int, start_bytes: int, end_bytes: int) -> t.Iterator[tuple[int, int]]:
    """What lies between the holes of [start, end), as file offsets."""
    position = start_bytes
    for hole, data in holes(fd, start_bytes, end_bytes):
        if hole > position:
            yield position, hole
        position = data
    if position < end_bytes:
        yield position, end_bytes


def first_missing_page(fd: int, block: RamBlock, bitmap: Bitmap) -> int | None:
    """A present page that lies in a hole, wholly or in part; None when every page has its data."""
    pages_offset, page_bytes = block.pages_offset_bytes, block.page_size_bytes
    if pages_offset is None or page_bytes is None:
        raise ValueError(f"RAM block {block.name} has no pages: the stream is sequential")
    for start, end in holes(fd, pages_offset, pages_offset + block.used_length_bytes):
        first = (start - pages_offset) // page_bytes
        last = -(-(end - pages_offset) // page_bytes)
        missing = bitmap.first_present(first, last)
        if missing is not None:
            return missing
    return None
