# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a domain's own configuration remembers for us.

There it is safe from whatever ends a run or the host, and whoever looks at the domain sees it.
"""

from __future__ import annotations

from ._connection import Connection

AUTOSTART = "autostart"
AUTOSTART_ONCE = "autostart_once"
RESUME = "resume"


async def note(connection: Connection, uuid: str, word: str) -> None:
    """Remember ``word``."""
    await connection.write_notes(uuid, await connection.read_notes(uuid) | {word})


async def is_noted(connection: Connection, uuid: str, word: str) -> bool:
    """Whether it is remembered."""
    return word in await connection.read_notes(uuid)


async def forget(connection: Connection, uuid: str, word: str) -> bool:
    """Forget ``word``. True when it was remembered."""
    notes = await connection.read_notes(uuid)
    if word not in notes:
        return False
    await connection.write_notes(uuid, notes - {word})
    return True
