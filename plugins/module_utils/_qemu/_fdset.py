# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Fdsets: the image's file descriptors as QEMU wants them.

QEMU takes the first fd of a set whose access mode and O_DIRECT bit are exactly the wanted ones
(spec/qemu.md 2.3). A missing O_DIRECT fd kills the source guest (spec/qemu.md 0.1), so O_DIRECT
is proved here, with real I/O, before QEMU hears of it.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os

from .._errors import MonitorError, StoreError
from ._bookmark import Bookmark
from ._monitor import Monitor

DIRECT_IO_BYTES = 4096


def _reopen(fd: int, flags: int) -> int:
    # Through /proc the very inode is opened again, whatever its name points to by now. A dup
    # would share the file status flags, O_DIRECT included.
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def _io(fd: int, offset_bytes: int, write: bool) -> int:
    with mmap.mmap(-1, DIRECT_IO_BYTES) as page:  # page-aligned, as O_DIRECT demands
        if write:
            return os.pwrite(fd, page, offset_bytes)
        return os.preadv(fd, [page], offset_bytes)


def direct_io_refusal(fd: int, offset_bytes: int, *, write: bool) -> str | None:
    """Why the filesystem does not do O_DIRECT on this file; None when it does.

    Opens the file once more and moves one aligned page at ``offset_bytes`` (a multiple of 4096).
    With ``write`` that page is overwritten with zeros: call it before QEMU's stream is there.
    Raises `StoreError` when the trial failed for another reason, such as a full disk.
    """
    access = os.O_WRONLY if write else os.O_RDONLY
    try:
        direct = _reopen(fd, access | os.O_DIRECT)
        try:
            moved = _io(direct, offset_bytes, write)
        finally:
            os.close(direct)
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            return f"the filesystem refuses O_DIRECT ({exc.strerror})"
        raise StoreError(
            f"An aligned O_DIRECT {'write' if write else 'read'} at offset {offset_bytes} of the "
            f"image failed: {exc.strerror}.",
            errno=exc.errno,
        ) from exc
    if write and moved != DIRECT_IO_BYTES:
        return f"the filesystem wrote {moved} of {DIRECT_IO_BYTES} bytes with O_DIRECT"
    return None


async def hand_over(
    monitor: Monitor, fd: int, bookmark: Bookmark, *, write: bool, direct: bool
) -> int:
    """Give QEMU the file behind ``fd`` in a new fdset; returns the set's id.

    The buffered descriptor always, a second one opened apart with O_DIRECT when ``direct``; each
    carries the bookmark. On any error the set is taken back.
    """
    access = os.O_WRONLY if write else os.O_RDONLY
    fdset_id: int | None = None
    try:
        for flags in [access, access | os.O_DIRECT] if direct else [access]:
            opened = _reopen(fd, flags)
            try:
                fdset_id = await monitor.add_fd(opened, fdset_id, bookmark.text())
            finally:
                os.close(opened)
    except BaseException:
        if fdset_id is not None:
            with contextlib.suppress(MonitorError):
                await take_back(monitor, fdset_id)
        raise
    if fdset_id is None:
        raise AssertionError("no descriptor was handed over")
    return fdset_id


async def take_back(monitor: Monitor, fdset_id: int) -> None:
    """Remove the fdset; one that is gone already is fine."""
    present = await monitor.execute("query-fdsets")
    if any(entry["fdset-id"] == fdset_id for entry in present):
        await monitor.execute("remove-fd", {"fdset-id": fdset_id})


def uri(fdset_id: int, offset_bytes: int) -> str:
    """The address of a stream that starts at ``offset_bytes`` (spec/qemu.md 2.1)."""
    return f"file:/dev/fdset/{fdset_id},offset={offset_bytes}"
