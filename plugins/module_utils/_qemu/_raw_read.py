# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Reading a few blocks of a file or a device, on request past the page cache."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import typing as t


def read_blocks(
    fd: int, offsets: t.Sequence[int], block_bytes: int, *, direct: bool
) -> list[bytes]:
    """The blocks at ``offsets``, short at the file's end. ``direct``: with O_DIRECT where it works;
    ``block_bytes`` and ``offsets`` are then multiples of its unit. Raises `OSError`."""
    if direct:
        with contextlib.suppress(OSError), _direct(fd):
            return _read(fd, offsets, block_bytes)
    return _read(fd, offsets, block_bytes)


@contextlib.contextmanager
def _direct(fd: int) -> t.Iterator[None]:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _read(fd: int, offsets: t.Sequence[int], block_bytes: int) -> list[bytes]:
    with mmap.mmap(-1, block_bytes) as buffer:  # aligned to a page, as O_DIRECT wants it
        return [bytes(buffer[: os.preadv(fd, [buffer], offset)]) for offset in offsets]
