# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The pump: bytes between a pipe and an image, past the page cache on request.

What libvirt's iohelper does: blocks of 1 MiB, with O_DIRECT aligned and the last one padded, then
the file cut to the exact length. These functions block; they are run in a thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from .._errors import StoreError

BLOCK_BYTES = 1 << 20
ALIGNMENT_BYTES = 4096
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, named in fcntl from Python 3.10 on


def open_again(fd: int, flags: int) -> int:
    """A descriptor of the same inode with flags of its own, O_DIRECT among them."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def widen_pipe(fd: int) -> None:
    """Give a pipe room for a whole block; where that is not allowed, the default serves."""
    try:
        fcntl.fcntl(fd, _SET_PIPE_SIZE, BLOCK_BYTES)
    except OSError:
        return


def _fill(pipe_fd: int, block: mmap.mmap) -> int:
    """Read until the block is full or the pipe ends; returns the bytes in it."""
    view, filled = memoryview(block), 0
    try:
        while filled < BLOCK_BYTES:
            count = os.readv(pipe_fd, [view[filled:]])
            if count == 0:
                break
            filled += count
    finally:
        view.release()
    return filled


def _write_all(fd: int, data: memoryview, offset_bytes: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset_bytes + done)


def pump_in(pipe_fd: int, image_fd: int, path: str, offset_bytes: int, *, direct: bool) -> int:
    """Write everything that comes out of the pipe into the image from ``offset_bytes`` on.

    Returns the length in bytes, to which the file is cut. ``offset_bytes`` is a multiple of 4096
    when ``direct``. Raises `StoreError` naming file and offset; the pipe is closed in any case, so
    that its writer notices.
    """
    position = offset_bytes
    try:
        fd = open_again(image_fd, os.O_WRONLY | (os.O_DIRECT if direct else 0))
        try:
            with mmap.mmap(-1, BLOCK_BYTES) as block:
                while True:
                    filled = _fill(pipe_fd, block)
                    if filled == 0:
                        break
                    size = -(-filled // ALIGNMENT_BYTES) * ALIGNMENT_BYTES if direct else filled
                    block[filled:size] = bytes(size - filled)
                    with memoryview(block) as view, view[:size] as part:
                        _write_all(fd, part, position)
                    position += filled
                    if filled < BLOCK_BYTES:
                        break
        finally:
            os.close(fd)
        os.ftruncate(image_fd, position)
    except OSError as exc:
        raise StoreError(
            f"{path}: writing at offset {position} failed: {exc.strerror}.",
            path=path,
            offset_bytes=position,
            errno=exc.errno,
        ) from exc
    finally:
        os.close(pipe_fd)
    return position - offset_bytes


def pump_out(image_fd: int, pipe_fd: int, path: str, offset_bytes: int, *, direct: bool) -> int:
    """Write the image from ``offset_bytes`` to its end into the pipe; returns the bytes written.

    ``offset_bytes`` need not be aligned. A reader that closes its end early ends the pump without
    an error: whether it had all it wanted is its own to say. Raises `StoreError`.
    """
    position, written = offset_bytes, 0
    try:
        fd = open_again(image_fd, os.O_RDONLY | (os.O_DIRECT if direct else 0))
        try:
            with mmap.mmap(-1, BLOCK_BYTES) as block, memoryview(block) as view:
                while True:
                    start = position // ALIGNMENT_BYTES * ALIGNMENT_BYTES
                    count = os.preadv(fd, [view], start) - (position - start)
                    if count <= 0:
                        return written
                    skip = position - start
                    with view[skip : skip + count] as part:
                        if not _write_pipe(pipe_fd, part):
                            return written
                    position += count
                    written += count
        finally:
            os.close(fd)
    except OSError as exc:
        raise StoreError(
            f"{path}: reading at offset {position} failed: {exc.strerror}.",
            path=path,
            offset_bytes=position,
            errno=exc.errno,
        ) from exc
    finally:
        os.close(pipe_fd)


def _write_pipe(pipe_fd: int, data: memoryview) -> bool:
    done = 0
    while done < len(data):
        try:
            done += os.write(pipe_fd, data[done:])
        except BrokenPipeError:
            return False
    return True
