# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Making an image appear: complete and durable, or not at all (DESIGN.md, Save 3 and 7)."""

from __future__ import annotations

import errno
import os
import stat

from .._errors import Refused
from ._header import MAGIC_COMPLETE
from ._lock import is_at, lock, lock_image, store_error, store_lock
from ._protection import replaceable
from ._squash import advice_for

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600


def partial_path(target: str) -> str:
    """Where the image of ``target`` is while it is being written."""
    directory, name = os.path.split(target)
    return os.path.join(directory, f".{name}.partial")


def refuse_unfinished(target: str) -> None:
    """Raise `Refused` when a save to ``target`` is under way, or was begun and not finished: what
    is at ``target`` is older then."""
    hidden = partial_path(target)
    if os.path.lexists(hidden):
        raise Refused(
            f"{hidden} is there: a save to {target} is under way, or was begun by a run that died. "
            "Run that save again: it finishes or undoes what was begun.",
            path=target,
        )


def target_of(path: str) -> str:
    """The inverse of `partial_path`."""
    directory, name = os.path.split(path)
    return os.path.join(directory, name[1 : -len(".partial")])


def check_target(target: str) -> None:
    """Refuse, without writing anything, what `PartialImage.create` could not begin.

    Raises `Refused` naming what is in the way.
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
        raise Refused(
            f"The directory {directory} is not writable for this user.{advice_for(directory)}"
        )
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise Refused(f"{target} exists and is not a regular file; it will not be replaced.")


class PartialImage:
    """An image that is being written. ``path`` is its name until it is published as ``target``;
    ``fd`` is open for reading and writing and holds the lock. ``committing``: it may carry its
    complete magic."""

    def __init__(self, target: str, path: str, fd: int) -> None:
        self.target = target
        self.path = path
        self.fd = fd
        self._new = True
        self.committing = False

    @classmethod
    def create(cls, target: str) -> PartialImage:
        """Create the file, mode 0600 whatever the umask, never through a symlink, and lock it.

        Raises as `check_target`, `ImageLocked` while another run writes this image, and
        `StoreError` otherwise.
        """
        path = partial_path(target)
        check_target(target)
        # Between creating and locking, another run would take the file for a dead run's.
        with store_lock(os.path.dirname(target)):
            if os.path.lexists(path):
                os.close(lock_image(path, write=False))
                raise Refused(f"{path} appeared while the save was being planned; run again.")
            try:
                fd = os.open(path, _CREATE, _PRIVATE)
            except OSError as exc:
                raise store_error("Creating", path, exc) from exc
            try:
                os.fchmod(fd, _PRIVATE)
                lock(fd, path)
            except BaseException:
                os.unlink(path)
                os.close(fd)
                raise
        return cls(target, path, fd)

    @classmethod
    def adopt(cls, target: str, path: str) -> PartialImage | None:
        """Take over what another run left at ``path`` (either name), locked; None when nothing is
        there.

        Raises `ImageLocked` while that run lives, `Refused` for what is no regular file.
        """
        if not os.path.isdir(os.path.dirname(path)):
            return None
        with store_lock(os.path.dirname(path)):
            if not os.path.lexists(path):
                return None
            image = cls(target, path, lock_image(path, write=True))
        image._new = False
        return image

    def write_prefix(self, data: bytes) -> None:
        """Write everything before the stream and make it durable. Raises `StoreError`."""
        try:
            _pwrite_all(self.fd, data)
            os.fsync(self.fd)
            if self._new:
                self._sync_directory()
                self._new = False
        except OSError as exc:
            raise store_error("Writing the beginning of", self.path, exc) from exc

    def sync(self) -> None:
        """Flush what QEMU wrote, whoever's descriptor it went through. Raises `StoreError`."""
        try:
            os.fsync(self.fd)
        except OSError as exc:
            raise store_error("Flushing", self.path, exc) from exc

    def publish(self, prefix: bytes) -> None:
        """Rewrite the prefix (old QEMUs truncate it away), then the complete magic, then the name.

        ``prefix`` carries the partial magic. Each step is durable before the next. Raises
        `StoreError`; the caller decides what becomes of an image that has its magic already.
        """
        self.write_prefix(prefix)
        self.committing = True
        try:
            os.pwrite(self.fd, MAGIC_COMPLETE, 0)
            os.fsync(self.fd)
        except OSError as exc:
            raise store_error("Publishing", self.target, exc) from exc
        self.give_name()

    def give_name(self) -> None:
        """Let the finished image appear at its target. Raises `StoreError`."""
        try:
            if not is_at(self.fd, self.path):
                raise OSError(errno.ESTALE, "someone removed or replaced it while it was written")
            with replaceable(self.target):
                os.rename(self.path, self.target)
            self.path = self.target
            self._sync_directory()
        except OSError as exc:
            raise store_error("Publishing", self.target, exc) from exc

    def release_space(self, keep_bytes: int) -> None:
        """Give the store its space back before the guest, which may need it, goes on; what tells
        another run about this save stays. Raises `StoreError`."""
        try:
            os.ftruncate(self.fd, min(keep_bytes, os.fstat(self.fd).st_size))
        except OSError as exc:
            raise store_error("Truncating", self.path, exc) from exc

    def discard(self) -> None:
        """Remove the file under whichever of its two names it has, if it still is ours."""
        for path in (self.path, self.target):
            if is_at(self.fd, path):
                try:
                    os.unlink(path)
                except OSError as exc:
                    raise store_error("Removing", path, exc) from exc

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
