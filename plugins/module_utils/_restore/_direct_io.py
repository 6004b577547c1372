# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""After libvirt loaded a sparse image past the page cache: QEMU must not keep direct-io."""

from __future__ import annotations

from .._errors import LibvirtError
from .._libvirt._connection import Connection
from .._libvirt._traps import set_direct_io


async def switch_direct_io_off(
    connection: Connection, uuid: str, actions: list[str]
) -> tuple[str, ...]:
    """As libvirt left it, the next sparse save by anybody without --bypass-cache would end the
    guest (T2). Adds to ``actions``; returns warnings."""
    try:
        if await set_direct_io(connection, uuid, False):
            actions.append("set direct-io off in QEMU")
    except LibvirtError as exc:
        return (
            f"The guest is back, but direct-io stays on in its QEMU: {exc.message} With QEMU 10.0 "
            "a sparse save by virsh without --bypass-cache would end it.",
        )
    return ()
