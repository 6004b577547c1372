# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Pages that are marked absent and hold data all the same.

A load leaves such pages zero, whatever the file holds there: a migration of a running guest leaves
old content where a page became zero later. Who maps the file sees that content, so an image must
have none before its pages may serve as RAM.
"""

from __future__ import annotations

import os

from ._bitmap import Bitmap
from ._extents import data_extents
from ._stream import RamBlock

# The bitmap is looked at in pieces, so that many short runs of absent pages cost no more than
# their number.
_WINDOW_PAGES = 1 << 15
_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(_CHUNK_BYTES)


def first_stale_page(fd: int, block: RamBlock, bitmap: Bitmap) -> int | None:
    """An absent page whose place in the file is not zero; None when there is none.

    Reads only what is marked absent and is no hole: nothing, for an image that was written once.
    """
    pages_offset, page_bytes = block.pages_offset_bytes, block.page_size_bytes
    if pages_offset is None or page_bytes is None:
        raise ValueError(f"RAM block {block.name} has no pages: the stream is sequential")
    for start, end in data_extents(fd, pages_offset, pages_offset + block.used_length_bytes):
        first = (start - pages_offset) // page_bytes
        last = -(-(end - pages_offset) // page_bytes)
        for window in range(first, last, _WINDOW_PAGES):
            stale = _first_in(fd, block, bitmap, window, min(window + _WINDOW_PAGES, last))
            if stale is not None:
                return stale
    return None


def _first_in(fd: int, block: RamBlock, bitmap: Bitmap, first: int, last: int) -> int | None:
    position = bitmap.first_absent(first, last)
    while position is not None:
        end = bitmap.first_present(position, last)
        stale = _first_used(fd, block, position, last if end is None else end)
        if stale is not None or end is None:
            return stale
        position = bitmap.first_absent(end, last)
    return None


def _first_used(fd: int, block: RamBlock, first: int, last: int) -> int | None:
    """The first of the pages [first, last) that is not zero."""
    page_bytes, pages_offset = block.page_size_bytes or 0, block.pages_offset_bytes or 0
    position, end = first * page_bytes, last * page_bytes
    while position < end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - position), pages_offset + position)
        if not chunk:
            return None
        if chunk != _ZEROS[: len(chunk)]:
            used = len(chunk) - len(chunk.lstrip(b"\0"))
            return (position + used) // page_bytes
        position += len(chunk)
    return None
