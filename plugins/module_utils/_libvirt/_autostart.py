# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Keeping libvirt from booting a saved domain afresh when the host comes up.

What was switched off is noted in the domain's own configuration (`_notes`).
"""

from __future__ import annotations

from ._connection import Connection
from ._domain import Domain
from ._notes import AUTOSTART, AUTOSTART_ONCE, forget, is_noted, note


async def hold_autostart(connection: Connection, domain: Domain) -> bool:
    """Switch autostart off; the note goes first, so that it is never switched off without one.
    True when it was on."""
    if domain.autostart:
        await note(connection, domain.uuid, AUTOSTART)
        await connection.set_autostart(domain.uuid, False)
    if domain.autostart_once:
        await note(connection, domain.uuid, AUTOSTART_ONCE)
        await connection.set_autostart_once(domain.uuid, False)
    return domain.autostart or domain.autostart_once


async def is_held(connection: Connection, uuid: str) -> bool:
    """Whether a save switched it off."""
    return await is_noted(connection, uuid, AUTOSTART) or await is_noted(
        connection, uuid, AUTOSTART_ONCE
    )


async def release_autostart(connection: Connection, uuid: str) -> bool:
    """Switch on again what `hold_autostart` switched off, whichever run that was. True when it
    was."""
    released = False
    if await is_noted(connection, uuid, AUTOSTART):
        await connection.set_autostart(uuid, True)
        released = await forget(connection, uuid, AUTOSTART)
    if await is_noted(connection, uuid, AUTOSTART_ONCE):
        await connection.set_autostart_once(uuid, True)
        released = await forget(connection, uuid, AUTOSTART_ONCE)
    return released
