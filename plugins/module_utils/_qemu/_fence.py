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


def take_fingerprints(
    nodes: t.Sequence[BlockNode], pid: int | None, directory: str | None
) -> tuple[Fingerprint, ...]:
    """Of every file and device behind the guest's disks, backing files and NVRAM included.

    ``pid``: QEMU's, in whose mount namespace its names are seen; ``directory``: where relative ones
    start.
    """
    names = [node.filename for node in nodes if node.driver in _ON_THIS_HOST]
    taken = []
    for name in dict.fromkeys(names):
        if name and not name.startswith(_FDSET):
            path = locate(name, directory)
            taken.append(fingerprint(path, _seen_at(path, pid)))
    return tuple(taken)


def changed_disks(saved: t.Sequence[Fingerprint], *, same_boot: bool) -> tuple[str, ...]:
    """What differs by now, each naming the file and the field."""
    found: list[str] = []
    for then in saved:
        found += changes(then, fingerprint(then.path), same_boot=same_boot)
    return tuple(found)


def _seen_at(path: str, pid: int | None) -> str | None:
    """Where the process ``pid`` has what it calls ``path``; None where the name itself leads there.

    It does so within one mount namespace, and better: an absolute symlink leads out of
    /proc/PID/root. A QEMU that went elsewhere by -chroot had opened its disks before.
    """
    if pid is None or not os.path.isabs(path):
        return None
    root = f"/proc/{pid}/root"
    inside = os.path.join(root, path.lstrip("/"))
    try:
        if not os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt"):
            return inside
        return None if os.path.samefile(root, "/") or not os.path.exists(inside) else inside
    except OSError:  # it has ended, or is not ours to look at
        return None
