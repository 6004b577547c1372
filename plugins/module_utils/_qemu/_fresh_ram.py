# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether the RAM of a waiting destination is still empty.

Loading a mapped-ram image writes only the pages it holds; where the guest had zeros, whatever
the destination's memory holds stays (spec/qemu.md 0.5, spec/libvirt.md T4). Anonymous memory
starts as zeros. A file behind a memory backend may hold the RAM of an earlier run.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._errors import Refused, StoreError
from ._command_line import json_of, keys_of, options_of
from ._monitor import Monitor
from ._process import ProcessIdentity, users_of

_FILE_BACKEND = "child<memory-backend-file>"
_CHUNK_BYTES = 1 << 20


def first_used_offset(fd: int) -> int | None:
    """Offset in bytes of the chunk that holds a file's first byte other than zero, or None.

    Holes are skipped, so an untouched file costs nothing whatever its size.
    """
    position = 0
    while True:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return None
            raise
        chunk = os.pread(fd, _CHUNK_BYTES, position)
        if not chunk:
            return None
        if chunk.count(0) != len(chunk):
            return position
        position += len(chunk)


def used_reason(path: str) -> str | None:
    """Why the file behind a memory backend cannot count as empty RAM; None when it is empty.

    A directory (hugetlbfs) means that QEMU makes a file of its own in it, empty by nature.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        return f"it cannot be read to see whether it is empty ({exc.strerror})"
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISREG(mode):
            return "it is a device, whose content outlives a guest"
        offset = first_used_offset(fd)
    except OSError as exc:
        return f"it cannot be searched for data ({exc.strerror})"
    finally:
        os.close(fd)
    return None if offset is None else f"it holds data from offset {offset} on"


def _as_seen_by(process: ProcessIdentity | None, path: str) -> str:
    """A path of QEMU's as it is reached from here: its working directory and mount namespace."""
    if process is None:
        return path
    root = f"/proc/{process.pid}/{'root' if os.path.isabs(path) else 'cwd'}"
    return os.path.join(root, path.lstrip("/")) if os.access(root, os.X_OK) else path


def memory_files(argv: t.Sequence[str], directory: str) -> tuple[str, ...]:
    """Files that a command line puts guest RAM into; relative names start at ``directory``."""
    paths = []
    for option in options_of(argv[1:]):
        if option.name == "mem-path" and option.value:
            paths.append(option.value)
        elif option.name == "object" and option.value:
            keys = json_of(option.value) or keys_of(option.value, "qom-type")
            if keys.get("qom-type") == "memory-backend-file" and keys.get("mem-path"):
                paths.append(str(keys["mem-path"]))
    return tuple(os.path.join(directory, path) for path in paths)


async def _backends(
    monitor: Monitor, process: ProcessIdentity | None
) -> list[tuple[str, str, str]]:
    """Id, path, and path as seen from here, of each file-backed memory backend."""
    found = []
    for entry in await monitor.execute("qom-list", {"path": "/objects"}):
        if entry["type"] == _FILE_BACKEND:
            backend = f"/objects/{entry['name']}"
            path = str(await monitor.execute("qom-get", {"path": backend, "property": "mem-path"}))
            found.append((entry["name"], path, _as_seen_by(process, path)))
    return found


async def stale_backends(monitor: Monitor, process: ProcessIdentity | None) -> tuple[str, ...]:
    """One sentence for each file-backed memory backend that is not provably empty."""
    reasons = [
        (name, path, used_reason(seen)) for name, path, seen in await _backends(monitor, process)
    ]
    return tuple(
        f"Memory backend {name} uses {path}, and {reason}."
        for name, path, reason in reasons
        if reason is not None
    )


async def empty_backends(monitor: Monitor, process: ProcessIdentity | None) -> tuple[str, ...]:
    """Empty every file behind this QEMU's RAM that holds data; returns their paths.

    Its vCPUs must never have run. Raises `Refused` when another process has such a file open: it
    may be the RAM of a guest that lives; `StoreError` when it cannot be emptied.
    """
    emptied = []
    for _name, path, seen in await _backends(monitor, process):
        if used_reason(seen) is not None:
            _empty(seen, path, process)
            emptied.append(path)
    return tuple(emptied)


def _empty(seen: str, path: str, process: ProcessIdentity | None) -> None:
    try:
        fd = os.open(seen, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise StoreError(f"The memory file {path} cannot be emptied: {exc.strerror}.") from exc
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"The memory of {path} cannot be emptied: it is not a file.")
        holders = users_of(status, {os.getpid(), process.pid if process is not None else 0})
        if holders:
            raise Refused(
                f"The memory file {path} will not be emptied: process {holders[0]} has it open, "
                "and it may be the RAM of a guest that lives."
            )
        # QEMU has it mapped, but touches none of it before the load.
        os.ftruncate(fd, 0)
        os.ftruncate(fd, status.st_size)
        os.fsync(fd)
    except OSError as exc:
        raise StoreError(f"The memory file {path} cannot be emptied: {exc.strerror}.") from exc
    finally:
        os.close(fd)
