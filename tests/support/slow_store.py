# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store on which O_DIRECT is slow, and nothing else: a FUSE filesystem that passes everything on.

As a program it serves it: `slow_store.py DIRECTORY MOUNTPOINT`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy as fuse

DELAY_SECONDS = 0.03


def why_not() -> str | None:
    """Why there can be none here; None when there can."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        return "a FUSE filesystem of the test's own needs root and /dev/fuse"
    return None


class SlowStore:
    """Mounted at ``directory``/store until `close`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store"
        self.path.mkdir(mode=0o700)
        (directory / "below").mkdir(mode=0o700)
        self._server = subprocess.Popen([sys.executable, __file__, directory / "below", self.path])
        end = time.monotonic() + 30
        while not os.path.ismount(self.path):
            assert self._server.poll() is None, "the filesystem is not served"
            assert time.monotonic() < end, "the filesystem was not mounted"
            time.sleep(0.05)

    def close(self) -> None:
        """Unmount it; its server ends with that."""
        subprocess.run(["umount", "--lazy", self.path], check=True)
        self._server.wait(30)


class _PassOn(fuse.Operations):
    use_ns = True

    def __init__(self, below: str) -> None:
        self._below = below
        self._direct: set[int] = set()

    def _at(self, path: str) -> str:
        return self._below + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.fstat(fh) if fh is not None else os.lstat(self._at(path))
        names = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "mtime", "ctime", "atime")
        return {f"st_{name}": getattr(status, f"st_{name}") for name in names}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def open(self, path: str, flags: int) -> int:
        fd = os.open(self._at(path), flags & ~os.O_DIRECT)
        if flags & os.O_DIRECT:
            self._direct.add(fd)
        return fd

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if fh in self._direct:
            time.sleep(DELAY_SECONDS)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(fh if fh is not None else self._at(path), length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        self._direct.discard(fh)
        os.close(fh)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._at(path), uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at(path), ns=times or (time.time_ns(), time.time_ns()))

    def statfs(self, path: str) -> dict[str, Any]:
        store = os.statvfs(self._at(path))
        names = ("bavail", "bfree", "blocks", "bsize", "ffree", "files", "frsize", "namemax")
        return {f"f_{name}": getattr(store, f"f_{name}") for name in names}


if __name__ == "__main__":
    fuse.FUSE(_PassOn(sys.argv[1]), sys.argv[2], foreground=True, nothreads=False)
