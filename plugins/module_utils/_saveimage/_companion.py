# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The companion of an image whose RAM is mapped: the same stream without the mapped pages.

QEMU never touches pages that a bitmap calls absent (spec/qemu.md 0.5). So it is handed a stream in
which the mapped blocks have none, at the very offsets of the image: a memory file with holes where
the pages were, of a few MiB whatever the guest's RAM.
"""

from __future__ import annotations

import os
import typing as t

from ._extents import data_extents
from ._stream import RamBlock

_CHUNK_BYTES = 1 << 20


def build_companion(
    fd: int, blocks: t.Sequence[RamBlock], mapped: t.Container[str], data_offset_bytes: int
) -> int:
    """A memory file that holds the stream of the image ``fd`` for a QEMU that has the RAM blocks
    named in ``mapped`` already; the caller closes it.

    ``blocks``: all of the stream, which starts at ``data_offset_bytes``. Raises OSError.
    """
    size = os.fstat(fd).st_size
    companion = os.memfd_create("companion", os.MFD_CLOEXEC)
    try:
        os.ftruncate(companion, size)
        position = data_offset_bytes
        for start, end in sorted(_left_out(blocks, mapped)):
            _copy(fd, companion, position, start)
            position = end
        _copy(fd, companion, position, size)
    except BaseException:
        os.close(companion)
        raise
    return companion


def _left_out(
    blocks: t.Iterable[RamBlock], mapped: t.Container[str]
) -> t.Iterator[tuple[int, int]]:
    """Bitmap and pages of each mapped block, as file offsets."""
    for block in blocks:
        bitmap, pages = block.bitmap_offset_bytes, block.pages_offset_bytes
        if block.name in mapped and bitmap is not None and pages is not None:
            yield bitmap, bitmap + (block.bitmap_bytes or 0)
            yield pages, pages + block.used_length_bytes


def _copy(source: int, target: int, start_bytes: int, end_bytes: int) -> None:
    for start, end in data_extents(source, start_bytes, end_bytes):
        position = start
        while position < end:
            chunk = os.pread(source, min(_CHUNK_BYTES, end - position), position)
            if not chunk:
                return  # the file ended: the load will say where
            position += os.pwrite(target, chunk, position)
