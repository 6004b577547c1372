# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A domain after a save that failed here, when libvirt is done with it."""

from __future__ import annotations

import asyncio
import time

from .._errors import LibvirtError
from .._libvirt._connection import Connection
from .._libvirt._domain import Domain

_WAIT_SECONDS = 30.0
_LOOK_SECONDS = 0.5


async def settled(connection: Connection, uuid: str) -> tuple[Domain | None, bool]:
    """The domain, and whether that is known: libvirt may go on with a save whose caller is gone,
    and until its job has ended nothing of it may be touched. A connection that broke is made anew.
    """
    end = time.monotonic() + _WAIT_SECONDS
    domain: Domain | None = None
    while True:
        try:
            domain = await connection.find(uuid)
        except LibvirtError:
            if not await connection.again():
                return domain, False
        else:
            if domain is None or not (domain.job or domain.starting):
                return domain, True
        if time.monotonic() > end:
            return domain, False
        await asyncio.sleep(_LOOK_SECONDS)
