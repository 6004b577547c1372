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
from ._notes import AUTOSTART, forget, is_noted, note


async def hold_autostart(connection: Connection, domain: Domain) -> bool:
    """Switch autostart off; the note goes first, so that it is never switched off without one.
    True when it was on."""
    if not domain.autostart:
        return False
    await note(connection, domain.uuid, AUTOSTART)
    await connection.set_autostart(domain.uuid, False)
    return True


async def is_held(connection: Connection, uuid: str) -> bool:
    """Whether a save switched it off."""
    return await is_noted(connection, uuid, AUTOSTART)


async def release_autostart(connection: Connection, uuid: str) -> bool:
    """Switch on again what `hold_autostart` switched off, whichever run that was. True when it
    was."""
    if not await is_held(connection, uuid):
        return False
    await connection.set_autostart(uuid, True)
    await forget(connection, uuid, AUTOSTART)
    return True
