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

from ._monitor import Monitor
from ._process import ProcessIdentity

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

    A directory (hugetlbfs) means that QEMU made a file of its own in it, empty by nature.
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


async def stale_backends(monitor: Monitor, process: ProcessIdentity | None) -> tuple[str, ...]:
    """One sentence for each file-backed memory backend that is not provably empty."""
    found = []
    for entry in await monitor.execute("qom-list", {"path": "/objects"}):
        if entry["type"] != _FILE_BACKEND:
            continue
        backend = f"/objects/{entry['name']}"
        path = str(await monitor.execute("qom-get", {"path": backend, "property": "mem-path"}))
        reason = used_reason(_as_seen_by(process, path))
        if reason is not None:
            found.append(f"Memory backend {entry['name']} uses {path}, and {reason}.")
    return tuple(found)
