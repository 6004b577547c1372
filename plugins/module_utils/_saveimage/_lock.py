# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Locks on images and stores: flock, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import typing as t

from .._errors import ImageLocked, Refused, StoreError
from ._squash import advice_for

_STORE_SECONDS = 30.0
_RETRY_SECONDS = 0.01
# What filesystems answer that cannot lock a directory; NFS wants a descriptor for writing.
_NO_DIRECTORY_LOCKS = (errno.EBADF, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def lock_holder(fd: int) -> int | None:
    """Pid of a process that holds a flock on this file, as /proc/locks tells; None if unknown."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            if "FLOCK" in fields and device in fields:
                return int(fields[fields.index(device) - 1]) or None
    return None


def lock(fd: int, path: str) -> None:
    """Lock an image for this process. Raises as `lock_image`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock_holder(fd)
        raise ImageLocked(
            f"{path} is in use by another run"
            + (f" (pid {holder})" if holder else "")
            + ": a save or a restore of it is under way. Wait for it to end.",
            path=path,
            holder_pid=holder,
        ) from None
    except OSError as exc:  # some network filesystems know no flock
        raise store_error("Locking", path, exc) from exc


def store_error(doing: str, path: str, exc: OSError) -> StoreError:
    """What the filesystem answered, naming the file."""
    return StoreError(f"{doing} {path} failed: {exc.strerror}.", path=path, errno=exc.errno)


def lock_image(path: str, *, write: bool) -> int:
    """Open an existing image and lock it; returns the fd, which the caller closes.

    Raises `Refused` for what is missing, a symlink or no regular file, `ImageLocked` naming the
    holder's pid when another process has it, `StoreError` where nothing can be locked.
    """
    access = os.O_RDWR if write else os.O_RDONLY
    try:
        fd = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise Refused(f"There is no image at {path}.", path=path) from exc
    except OSError as exc:
        advice = advice_for(path) if exc.errno in (errno.EACCES, errno.EPERM) else ""
        raise Refused(f"{path} cannot be opened: {exc.strerror}.{advice}", path=path) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(f"{path} is not a regular file.", path=path)
        lock(fd, path)
        if not is_at(fd, path):
            raise ImageLocked(f"{path} was replaced just now by another run.", path=path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_at(fd: int, path: str) -> bool:
    """Whether ``path`` names the file behind ``fd``."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def store_lock(directory: str) -> t.Iterator[None]:
    """Hold a store for the moment in which an image is created or a dead run's file is taken over.

    Waits for another run that does the same; raises `ImageLocked` naming it after 30 s. Where the
    filesystem cannot lock directories, images are protected by their own locks alone.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise Refused(f"The directory {directory} cannot be used: {exc.strerror}.") from exc
    try:
        _wait_for(fd, directory)
        yield
    finally:
        os.close(fd)


def _wait_for(fd: int, directory: str) -> None:
    end = time.monotonic() + _STORE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                holder = lock_holder(fd)
                raise ImageLocked(
                    f"The store {directory} is held by another run"
                    + (f" (pid {holder})" if holder else "")
                    + f" for more than {_STORE_SECONDS:g} s.",
                    path=directory,
                    holder_pid=holder,
                ) from None
            time.sleep(_RETRY_SECONDS)
        except OSError as exc:
            if exc.errno in _NO_DIRECTORY_LOCKS:
                return
            raise store_error("Locking", directory, exc) from exc
