# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether the QEMU that holds a domain now is one that a restore started. Functions raise
`LibvirtError`, and `ImageInvalid` for an image that cannot be read."""

from __future__ import annotations

from ._image_record import CONTINUED, LOADING, SavedImage
from ._libvirt._connection import Connection
from ._libvirt._domain import Domain
from ._qemu._process import thread_group
from ._saveimage._life import life_notes
from ._saveimage._prefix import read_prefix


async def was_started_to_load(connection: Connection, uuid: str) -> bool:
    """False for one that booted its guest, whatever an older restore has noted of the domain; and
    where its process cannot be seen from here."""
    cpus = await connection.execute(uuid, "query-cpus-fast")
    pid = thread_group(cpus[0]["thread-id"]) if cpus else None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            return b"-incoming" in words.read().split(b"\0")
    except OSError:
        return False


async def was_loaded_from(
    connection: Connection, fd: int, image: SavedImage, domain: Domain | None
) -> bool:
    """Whether a restore of ours began to load ``image``, open as ``fd``, and its QEMU is still the
    one that holds the domain, as far as that decides anything."""
    if life_notes(read_prefix(fd, image.path)).get(LOADING) is not True:
        return False
    if domain is None or domain.state != "paused" or domain.starting or domain.job:
        return True  # decides nothing
    return await was_started_to_load(connection, domain.uuid)


async def never_ran_since(connection: Connection, image: SavedImage | None, domain: Domain) -> bool:
    """Whether the domain was loaded from ``image``, and its vCPUs are held since."""
    if image is None or domain.state != "paused" or image.uuid != domain.uuid:
        return False
    with open(image.path, "rb") as source:
        notes = life_notes(read_prefix(source.fileno(), image.path))
    loaded = notes.get(LOADING) is True and notes.get(CONTINUED) is not True
    return loaded and await was_started_to_load(connection, domain.uuid)
