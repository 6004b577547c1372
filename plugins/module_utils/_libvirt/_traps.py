# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What libvirt leaves in a domain's QEMU that would end the guest, or fill the store, later."""

from __future__ import annotations

from ._connection import Connection

# QEMU keeps it for good, and libvirt 11.3 only ever sets it to true (spec/libvirt.md 0, T2).
_DIRECT_IO = "direct-io"
# How libvirt labels what it hands to QEMU for a save (spec/libvirt.md 1.5).
_LIBVIRTS_SAVE = "libvirt-outgoing-migrate"


async def offered_by(connection: Connection, uuid: str) -> tuple[bool, bool]:
    """Whether the domain's QEMU has mapped-ram, and whether it has direct-io."""
    capabilities = await connection.execute(uuid, "query-migrate-capabilities")
    parameters = await connection.execute(uuid, "query-migrate-parameters")
    names = {entry["capability"] for entry in capabilities}
    return "mapped-ram" in names, _DIRECT_IO in parameters


async def blockers_of(connection: Connection, uuid: str) -> tuple[str, ...]:
    """QEMU's own words against a save of this domain, which libvirt would only find out when it
    tries (query-migrate, blocked-reasons)."""
    said = await connection.execute(uuid, "query-migrate")
    return tuple(said.get("blocked-reasons", ()))


async def set_direct_io(connection: Connection, uuid: str, wanted: bool) -> bool:
    """Make direct-io what libvirt believes it to be: a sparse save would end QEMU where it is on
    and libvirt hands over no descriptor for it (T1, T2). True when it had to be changed."""
    parameters = await connection.execute(uuid, "query-migrate-parameters")
    if parameters.get(_DIRECT_IO, wanted) == wanted:
        return False
    await connection.execute(uuid, "migrate-set-parameters", {_DIRECT_IO: wanted})
    return True


async def remove_leaked_fdsets(connection: Connection, uuid: str) -> int:
    """Take back what a failed save of libvirt's left open: until then the store does not get the
    space of the removed image back (T9). Returns how many."""
    removed = 0
    for fdset in await connection.execute(uuid, "query-fdsets"):
        labels = [entry.get("opaque", "") for entry in fdset["fds"]]
        if any(label.startswith(_LIBVIRTS_SAVE) for label in labels):
            await connection.execute(uuid, "remove-fd", {"fdset-id": fdset["fdset-id"]})
            removed += 1
    return removed
