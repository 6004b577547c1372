# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Walking a whole image, metadata only: what verification before quit and before restore means.

The work grows with the number of RAM blocks, bitmap bytes and file extents, never with RAM. It is
a check of structure; what the pages hold is not looked at.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._errors import ImageInvalid
from ._bitmap import PageCounts, read_bitmap
from ._extents import first_missing_page
from ._prefix import Prefix, read_prefix
from ._sample import StreamSample
from ._stream import MAPPED_RAM, SEQUENTIAL, UNKNOWN, RamBlock, StreamHead, read_stream_head
from ._tail import StreamTail, read_tail

_BLOCK_UNIT_BYTES = 512  # of st_blocks, whatever the filesystem (stat(2))


@dataclass(frozen=True)
class Structure:
    """A walked image. ``pages`` has one entry a RAM block and is empty unless mapped-ram;
    ``tail`` is None for a compressed stream, whose inside is not seen."""

    prefix: Prefix
    head: StreamHead
    pages: tuple[PageCounts, ...]
    tail: StreamTail | None
    apparent_bytes: int
    allocated_bytes: int

    @property
    def ram_bytes(self) -> int:
        return self.head.ram_bytes

    @property
    def present_pages(self) -> int | None:
        """Pages in the image; None where the layout does not tell."""
        return sum(count.present for count in self.pages) if self.pages else None

    @property
    def zero_pages(self) -> int | None:
        return sum(count.zero for count in self.pages) if self.pages else None


def _check_pages(fd: int, path: str, block: RamBlock, byte_order: str) -> PageCounts:
    bitmap = read_bitmap(fd, path, block, byte_order)
    missing = first_missing_page(fd, block, bitmap)
    if missing is not None:
        pages_offset = t.cast(int, block.pages_offset_bytes)
        page_bytes = t.cast(int, block.page_size_bytes)
        raise ImageInvalid(
            path,
            pages_offset + missing * page_bytes,
            f"page {missing} of RAM block {block.name} is marked present, but the file has a hole "
            "there: it was never written, or the file was copied without its data",
        )
    return bitmap.count()


def verify_decoded(fd: int, path: str, sample: StreamSample) -> Structure:
    """Walk a compressed image whose stream was decoded to its end into ``sample``.

    Checked: prefix, configuration, RAM block list, end marker and device description at exactly
    the stream's end. Offsets in errors count from the start of the decoded stream.
    """
    prefix = read_prefix(fd, path)
    status = os.fstat(fd)
    what = f"{path}, decoded"
    head = read_stream_head(sample.fd, what, 0, sample.length_bytes)
    if head.layout != SEQUENTIAL:
        raise ImageInvalid(what, 0, f"the decoded stream is {head.layout}, not sequential")
    return Structure(
        prefix=prefix,
        head=head,
        pages=(),
        tail=read_tail(sample.fd, what, head.end_bytes, sample.length_bytes),
        apparent_bytes=status.st_size,
        allocated_bytes=status.st_blocks * _BLOCK_UNIT_BYTES,
    )


def verify_structure(fd: int, path: str) -> Structure:
    """Walk the image behind ``fd``, whichever magic it carries.

    Checked: prefix, configuration, RAM blocks, for mapped-ram every bitmap and that no present
    page lies in a file hole, end marker and device description at exactly the file's end. Not
    walked: the page records of a sequential stream, anything inside a compressed one. Raises
    `ImageInvalid` with file, offset and reason.
    """
    prefix = read_prefix(fd, path)
    status = os.fstat(fd)
    offset = prefix.header.data_offset_bytes
    head = read_stream_head(fd, path, offset, prefix.file_bytes)
    if head.layout == UNKNOWN:
        raise ImageInvalid(path, offset, "no QEMU stream starts where the header says")
    pages: tuple[PageCounts, ...] = ()
    tail = None
    if head.layout == MAPPED_RAM:
        order = prefix.header.byte_order
        pages = tuple(_check_pages(fd, path, block, order) for block in head.ram_blocks)
    if head.layout in (MAPPED_RAM, SEQUENTIAL):
        tail = read_tail(fd, path, head.end_bytes, prefix.file_bytes)
    return Structure(
        prefix=prefix,
        head=head,
        pages=pages,
        tail=tail,
        apparent_bytes=status.st_size,
        allocated_bytes=status.st_blocks * _BLOCK_UNIT_BYTES,
    )
