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

import contextlib
import errno
import os
import stat
import typing as t

from .._errors import QmpCommandError, Refused, StoreError
from ._command_line import json_of, keys_of, options_of
from ._monitor import Monitor
from ._process import ProcessIdentity, users_of

_FILE_BACKEND = "child<memory-backend-file>"
_CHUNK_BYTES = 1 << 20
_USED = (
    "Memory backend {name} uses {path}, and {reason}. A mapped-ram load leaves old content where "
    "the guest had zeros; set reset_shared_memory to empty it, or remove the file first"
)
_READ_ONLY = (
    "Memory backend {name} begins with the content of {path}, which it only reads, and a load of "
    "mapped-ram leaves that where the guest had zeros. If this QEMU was started to map the image, "
    "set load to lazy; else end it, and start one with plain RAM"
)


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


def _is_ram(backend: str, ram_blocks: t.Container[str]) -> bool:
    """Whether the memory of a backend is a RAM block of the guest, which is named after the backend
    or its path. Others hold what is no RAM, such as the disk of a virtio-pmem device."""
    return backend in ram_blocks or f"/objects/{backend}" in ram_blocks


def memory_files(
    argv: t.Sequence[str], directory: str, ram_blocks: t.Container[str]
) -> tuple[str, ...]:
    """Files that a command line puts guest RAM into; relative names start at ``directory``.

    ``ram_blocks``: names of those in the image.
    """
    paths = []
    for option in options_of(argv[1:]):
        if option.name == "mem-path" and option.value:
            paths.append(option.value)
        elif option.name == "object" and option.value:
            keys = json_of(option.value) or keys_of(option.value, "qom-type")
            is_file = keys.get("qom-type") == "memory-backend-file" and keys.get("mem-path")
            if is_file and _is_ram(str(keys.get("id", "")), ram_blocks):
                paths.append(str(keys["mem-path"]))
    return tuple(os.path.join(directory, path) for path in paths)


class _Backend(t.NamedTuple):
    """``path``: as QEMU was told it; ``seen``: as it is reached from here."""

    name: str
    path: str
    seen: str
    read_only: bool

    def is_file(self, status: os.stat_result | None) -> bool:
        with contextlib.suppress(OSError):
            return status is not None and os.path.samestat(os.stat(self.seen), status)
        return False


async def _backends(
    monitor: Monitor, process: ProcessIdentity | None, ram_blocks: t.Container[str]
) -> list[_Backend]:
    found = []
    for entry in await monitor.execute("qom-list", {"path": "/objects"}):
        if entry["type"] == _FILE_BACKEND and _is_ram(entry["name"], ram_blocks):
            backend = f"/objects/{entry['name']}"
            path = str(await monitor.execute("qom-get", {"path": backend, "property": "mem-path"}))
            read_only = await _property(monitor, backend, "readonly")
            found.append(
                _Backend(entry["name"], path, _as_seen_by(process, path), read_only is True)
            )
    return found


async def _property(monitor: Monitor, path: str, name: str) -> object:
    try:
        return await monitor.execute("qom-get", {"path": path, "property": name})
    except QmpCommandError:  # older than this property
        return None


async def stale_backends(
    monitor: Monitor,
    process: ProcessIdentity | None,
    ram_blocks: t.Container[str],
    mapped: os.stat_result | None = None,
) -> tuple[str, ...]:
    """One sentence for each file-backed memory backend that is not provably empty.

    ``ram_blocks``: names of those in the image; what is none of them is no RAM. ``mapped``: the
    image that is to be the guest's RAM, which needs not be empty.
    """
    reasons = [
        (backend, used_reason(backend.seen))
        for backend in await _backends(monitor, process, ram_blocks)
        if not backend.is_file(mapped)
    ]
    return tuple(
        _READ_ONLY.format(name=backend.name, path=backend.path)
        if backend.read_only
        else _USED.format(name=backend.name, path=backend.path, reason=reason)
        for backend, reason in reasons
        if reason is not None
    )


async def empty_backends(
    monitor: Monitor,
    process: ProcessIdentity | None,
    ram_blocks: t.Container[str],
    mapped: os.stat_result | None = None,
) -> tuple[str, ...]:
    """Empty every file behind this QEMU's RAM that holds data; returns their paths.

    Its vCPUs must never have run. ``ram_blocks``: as for `stale_backends`; ``mapped``: the image
    that is to be the guest's RAM, which stays as it is. Raises `Refused` when another process has
    such a file open: it may be the RAM of a guest that lives; and when the file is only read by
    QEMU: it is no guest's RAM but what RAM begins with. `StoreError` when it cannot be emptied.
    """
    emptied = []
    for backend in await _backends(monitor, process, ram_blocks):
        if backend.is_file(mapped) or used_reason(backend.seen) is None:
            continue
        if backend.read_only:
            raise Refused(
                f"Memory backend {backend.name} begins with the content of {backend.path}, which "
                "it only reads; that will not be emptied. Give the QEMU plain RAM."
            )
        _empty(backend.seen, backend.path, process)
        emptied.append(backend.path)
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
