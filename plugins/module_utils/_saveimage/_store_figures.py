# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Measurements that are kept, by what the store is: with another mount, kernel or QEMU another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import typing as t

from .._measured import Figure, Figures
from ._trust import distrust

DIRECTORY = "/var/lib/vmfleet/stores"
# Disks fill up, age, and get other neighbours.
KEPT_SECONDS = 30 * 24 * 3600.0
_FORMAT = 1


def identity(directory: str, qemu: str) -> dict[str, t.Any]:
    """What a measurement holds for. ``qemu``: its version. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount = _mount_line(fd)
        store = os.fstatvfs(fd)
    finally:
        os.close(fd)
    return {
        "mount": mount,
        "filesystem_id": store.f_fsid,
        "kernel": os.uname().release,
        "qemu": qemu,
    }


def _mount_line(fd: int) -> list[str]:
    """Device, type, source and options, as /proc/self/mountinfo tells; empty where it does not."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            mount_id = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            fields = next(line.split() for line in mounts if line.split()[0] == mount_id)
        return [fields[2], fields[5], *fields[fields.index("-") + 1 :]]
    return []


def kept(store: t.Mapping[str, t.Any]) -> Figures | None:
    """The measurement of this store; None without one that holds, is not too old, and that nobody
    else could have written."""
    path = _path(store)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as source:
            if distrust(source.fileno(), path, os.geteuid()) is not None:
                return None
            found = json.load(source)
        age = time.time() - found["measured_at"]
        if (found["format"], found["store"]) != (_FORMAT, dict(store)) or not (
            0 <= age <= KEPT_SECONDS
        ):
            return None
        return Figures(
            float(found["measured_at"]),
            tuple(_figure(one) for one in found["write"]),
            tuple(_figure(one) for one in found["read"]),
        )
    return None


def _figure(found: t.Mapping[str, t.Any]) -> Figure:
    return Figure(bool(found["direct"]), int(found["channels"]), float(found["bytes_per_second"]))


def keep(store: t.Mapping[str, t.Any], figures: Figures) -> None:
    """Keep a measurement. Where that cannot be, the next run measures again: no error."""
    path = _path(store)
    data = {
        "format": _FORMAT,
        "store": dict(store),
        "measured_at": figures.measured_at,
        "write": [vars(one) for one in figures.write],
        "read": [vars(one) for one in figures.read],
    }
    half = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as target:
            json.dump(data, target)
        os.rename(half, path)


def _path(store: t.Mapping[str, t.Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(store), sort_keys=True).encode()).hexdigest()
    return os.path.join(DIRECTORY, f"{digest[:16]}.json")
