# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives as the Linux kernel unpacks them into its first file system (cpio, format "newc").

Layout: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

_MAGIC = b"070701"
_ALIGNMENT_BYTES = 4
_END_NAME = "TRAILER!!!"


class Entry(NamedTuple):
    """One file: ``mode`` with its type bits, ``device`` as (major, minor) of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """An empty directory."""
    return Entry(name, stat.S_IFDIR | 0o755)


def program(name: str, data: bytes) -> Entry:
    """A file that can be run."""
    return Entry(name, stat.S_IFREG | 0o755, data)


def character_device(name: str, major: int, minor: int) -> Entry:
    """A node for a character device."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of ``entries`` in their order: a directory stands before what is in it."""
    members = [*entries, Entry(_END_NAME, 0)]
    return b"".join(_member(number, entry) for number, entry in enumerate(members, start=1))


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    owner, group, links, changed_at, check = 0, 0, 1, 0, 0
    on_device = (0, 0)
    file = (inode, entry.mode, owner, group, links, changed_at, len(entry.data))
    fields = (*file, *on_device, *entry.device, len(name), check)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _aligned(header + name) + _aligned(entry.data)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT_BYTES)
