# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Read-only files: how an image is kept from changing while a guest runs from it.

The immutable attribute binds everybody, root included: no open for writing, no truncation by
name, no removal (ioctl_iflags(2)). On some filesystems, a descriptor that was open for writing
before can still write. Where the attribute cannot be had (another user than root, a filesystem
without it), the permission bits at least stop those who are not root.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import stat
import typing as t

from ._lock import store_error

_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_IMMUTABLE = 0x10
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

IMMUTABLE = "immutable"
MODE = "mode"


def _flags(fd: int) -> int:
    flags = array.array("I", [0, 0])
    fcntl.ioctl(fd, _GET_FLAGS, flags)
    return flags[0]


def _set_flags(fd: int, flags: int) -> None:
    fcntl.ioctl(fd, _SET_FLAGS, array.array("I", [flags, 0]))


def protection(fd: int) -> str | None:
    """``immutable``, ``mode`` (nobody may write, but root still can), or None."""
    with contextlib.suppress(OSError):
        if _flags(fd) & _IMMUTABLE:
            return IMMUTABLE
    return None if stat.S_IMODE(os.fstat(fd).st_mode) & _ANY_WRITE else MODE


def protect(fd: int, path: str) -> str:
    """Make the file read-only as strongly as can be; returns which way. Raises `StoreError`."""
    try:
        if protection(fd) == IMMUTABLE:
            return IMMUTABLE
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~_ANY_WRITE)
        with contextlib.suppress(OSError):
            _set_flags(fd, _flags(fd) | _IMMUTABLE)
            return IMMUTABLE
        return MODE
    except OSError as exc:
        raise store_error("Making read-only", path, exc) from exc


def lift(fd: int, path: str) -> None:
    """Let the file be written, replaced and removed again. Raises `StoreError`."""
    try:
        if protection(fd) == IMMUTABLE:
            _set_flags(fd, _flags(fd) & ~_IMMUTABLE)
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_IWUSR)
    except OSError as exc:
        raise store_error("Lifting the write protection of", path, exc) from exc


@contextlib.contextmanager
def replaceable(path: str) -> t.Iterator[None]:
    """While this lasts, the file that has this name may be renamed over or removed: who has it
    mapped keeps the very file. One that still has a name afterwards is protected again.

    Nothing happens where nothing is there. Raises `StoreError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        protected = protection(fd) == IMMUTABLE
        if protected:
            lift(fd, path)
        try:
            yield
        finally:
            # Still there by this name after a failure, or by another one that is a link to it.
            if protected and os.fstat(fd).st_nlink:
                protect(fd, path)
    finally:
        os.close(fd)
