# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether the QEMU that holds a domain now is one that a restore started."""

from __future__ import annotations

from ._libvirt._connection import Connection
from ._qemu._process import thread_group


async def was_started_to_load(connection: Connection, uuid: str) -> bool:
    """False for one that booted its guest, whatever an older restore has noted of the domain; and
    where its process cannot be seen from here. Raises `LibvirtError`."""
    cpus = await connection.execute(uuid, "query-cpus-fast")
    pid = thread_group(cpus[0]["thread-id"]) if cpus else None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            return b"-incoming" in words.read().split(b"\0")
    except OSError:
        return False
