# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Making an image appear: complete and durable, or not at all (DESIGN.md, Save 3 and 7)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from .._errors import ImageLocked, Refused, StoreError
from ._header import MAGIC_COMPLETE

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600


def partial_path(target: str) -> str:
    """Where the image of ``target`` is while it is being written."""
    directory, name = os.path.split(target)
    return os.path.join(directory, f".{name}.partial")


def check_target(target: str) -> None:
    """Refuse, without writing anything, what `PartialImage.create` could not begin.

    Raises `Refused` naming what is in the way, `ImageLocked` while another run writes this image.
    """
    directory, name = os.path.split(target)
    path = partial_path(target)
    try:
        longest = os.pathconf(directory, "PC_NAME_MAX")
    except OSError as exc:
        raise Refused(f"The directory {directory} cannot be used: {exc.strerror}.") from exc
    if len(os.fsencode(os.path.basename(path))) > longest:
        raise Refused(
            f"The name {name} is too long: while it is written, the image is called "
            f"{os.path.basename(path)}, and names here have at most {longest} bytes."
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Refused(f"The directory {directory} is not writable for this user.")
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise Refused(f"{target} exists and is not a regular file; it will not be replaced.")
    if os.path.lexists(path):
        os.close(lock_image(path, write=False))  # raises while its writer lives
        raise Refused(
            f"{path} was left by a run that died: nothing holds it. See with query-status whether "
            "its guest is still stopped, then remove the file and run again.",
            path=path,
        )


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


def _lock(fd: int, path: str) -> None:
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
        raise _store_error("Locking", path, exc) from exc


def _store_error(doing: str, path: str, exc: OSError) -> StoreError:
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
        raise Refused(f"{path} cannot be opened: {exc.strerror}.", path=path) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(f"{path} is not a regular file.", path=path)
        _lock(fd, path)
        if not _is_at(fd, path):
            raise ImageLocked(f"{path} was replaced just now by another run.", path=path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


class PartialImage:
    """An image that is being written. ``path`` is its name until it is published as ``target``;
    ``fd`` is open for reading and writing and holds the lock."""

    def __init__(self, target: str, path: str, fd: int) -> None:
        self.target = target
        self.path = path
        self.fd = fd
        self._new = True

    @classmethod
    def create(cls, target: str) -> PartialImage:
        """Create the file, mode 0600 whatever the umask, never through a symlink, and lock it.

        Raises as `check_target`, and `StoreError` otherwise.
        """
        path = partial_path(target)
        check_target(target)
        try:
            fd = os.open(path, _CREATE, _PRIVATE)
        except OSError as exc:
            raise _store_error("Creating", path, exc) from exc
        try:
            os.fchmod(fd, _PRIVATE)
            _lock(fd, path)
        except BaseException:
            os.unlink(path)
            os.close(fd)
            raise
        return cls(target, path, fd)

    def write_prefix(self, data: bytes) -> None:
        """Write everything before the stream and make it durable. Raises `StoreError`."""
        try:
            _pwrite_all(self.fd, data)
            os.fsync(self.fd)
            if self._new:
                self._sync_directory()
                self._new = False
        except OSError as exc:
            raise _store_error("Writing the beginning of", self.path, exc) from exc

    def sync(self) -> None:
        """Flush what QEMU wrote, whoever's descriptor it went through. Raises `StoreError`."""
        try:
            os.fsync(self.fd)
        except OSError as exc:
            raise _store_error("Flushing", self.path, exc) from exc

    def publish(self, prefix: bytes) -> None:
        """Rewrite the prefix (old QEMUs truncate it away), then the complete magic, then the name.

        ``prefix`` carries the partial magic. Each step is durable before the next. Raises
        `StoreError`; the caller decides what becomes of an image that has its magic already.
        """
        self.write_prefix(prefix)
        try:
            os.pwrite(self.fd, MAGIC_COMPLETE, 0)
            os.fsync(self.fd)
            if not _is_at(self.fd, self.path):
                raise OSError(errno.ESTALE, "someone removed or replaced it while it was written")
            os.rename(self.path, self.target)
            self._sync_directory()
        except OSError as exc:
            raise _store_error("Publishing", self.target, exc) from exc

    def discard(self) -> None:
        """Remove the file under whichever of its two names it has, if it still is ours."""
        for path in (self.path, self.target):
            if _is_at(self.fd, path):
                try:
                    os.unlink(path)
                except OSError as exc:
                    raise _store_error("Removing", path, exc) from exc

    def close(self) -> None:
        """Release the lock."""
        os.close(self.fd)

    def _sync_directory(self) -> None:
        directory = os.open(os.path.dirname(self.target) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _pwrite_all(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
