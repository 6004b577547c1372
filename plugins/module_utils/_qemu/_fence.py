# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The fence around a guest's disks: what they were like when it was saved, and whether they still
are.

Taken while QEMU is in postmigrate, when it has flushed them and lets go of them (spec/qemu.md 3.2).
"""

from __future__ import annotations

import os
import typing as t

from ._block_graph import BlockNode
from ._disks import locate
from ._fingerprint import Fingerprint, changes, fingerprint

# Drivers whose nodes are files or devices of this host; everything above them has no bytes of its
# own, and what lies on another host is compared by the waiting QEMU (see _description).
_ON_THIS_HOST = ("file", "host_device", "host_cdrom")
_FDSET = "/dev/fdset/"


def take_fingerprints(nodes: t.Sequence[BlockNode], pid: int | None) -> tuple[Fingerprint, ...]:
    """Of every file and device behind the guest's disks, backing files and NVRAM included.

    ``pid``: QEMU's, whose working directory and mount namespace its names are seen in.
    """
    names = [node.filename for node in nodes if node.driver in _ON_THIS_HOST]
    taken = []
    for name in dict.fromkeys(names):
        if name and not name.startswith(_FDSET):
            taken.append(fingerprint(locate(name, _working_directory(pid)), _seen_at(name, pid)))
    return tuple(taken)


def changed_disks(saved: t.Sequence[Fingerprint], *, same_boot: bool) -> tuple[str, ...]:
    """What differs by now, each naming the file and the field."""
    found: list[str] = []
    for then in saved:
        found += changes(then, fingerprint(then.path), same_boot=same_boot)
    return tuple(found)


def _working_directory(pid: int | None) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/cwd") if pid is not None else None
    except OSError:
        return None


def _seen_at(name: str, pid: int | None) -> str | None:
    if pid is None:
        return None
    root = f"/proc/{pid}/{'root' if os.path.isabs(name) else 'cwd'}"
    return os.path.join(root, name.lstrip("/")) if os.access(root, os.X_OK) else None
