# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A file without a name that keeps space of a store from others until it is needed."""

from __future__ import annotations

import ctypes
import errno
import os

from .._errors import StoreError

_SECTOR_BYTES = 512
_CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EISDIR, errno.ENOENT)


class Ballast:
    """``held_bytes``: what is kept now; ``why_not``: why nothing is, None where it can be.

    Where blocks are shared, compressed or thinly provided beneath the filesystem, what is kept is
    the filesystem's promise and not the device's. It ends with the process, however that ends.
    """

    def __init__(self, fd: int | None, held_bytes: int, why_not: str | None) -> None:
        self._fd = fd
        self.held_bytes = held_bytes
        self.why_not = why_not

    @classmethod
    def hold(cls, directory: str, size_bytes: int) -> Ballast:
        """Keep that much. Raises `StoreError` where there is not so much."""
        try:
            # Nothing is left behind by a run that is killed (open(2), O_TMPFILE).
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno in _CANNOT and os.path.isdir(directory):
                return cls(None, 0, "the filesystem has no files without names")
            raise StoreError(
                f"Holding space in {directory} failed: {exc.strerror}.", path=directory
            ) from exc
        failure = _fallocate(fd, size_bytes)
        if failure == 0 and os.fstat(fd).st_blocks * _SECTOR_BYTES >= size_bytes:
            return cls(fd, size_bytes, None)
        os.close(fd)
        if failure == 0:
            return cls(None, 0, "the filesystem says that it reserves blocks, and does not")
        if failure in _CANNOT:
            return cls(None, 0, "the filesystem cannot reserve blocks (fallocate)")
        status = os.statvfs(directory)
        raise StoreError(
            f"Holding {size_bytes} bytes in {directory} failed: {os.strerror(failure)}. "
            f"{status.f_bavail * status.f_frsize} bytes are free there. No guest was touched.",
            path=directory,
            errno=failure,
        )

    def release(self, size_bytes: int) -> None:
        """Give some of it back."""
        if self._fd is not None:
            self.held_bytes = max(0, self.held_bytes - size_bytes)
            os.ftruncate(self._fd, self.held_bytes)

    def close(self) -> None:
        """Give all of it back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self.held_bytes = None, 0


def _fallocate(fd: int, size_bytes: int) -> int:
    """fallocate(2); the error number, 0 for none. os.posix_fallocate would write zeros, gigabytes
    of them, where the filesystem cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if libc.fallocate(fd, 0, 0, size_bytes) == 0:
        return 0
    return ctypes.get_errno()
