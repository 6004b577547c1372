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
from .._libvirt._domain import Domain, whereabouts

_WAIT_SECONDS = 30.0
# A daemon that crashed is started again by systemd, within a few seconds.
_BACK_SECONDS = 10.0
_LOOK_SECONDS = 0.5


async def settled(connection: Connection, uuid: str) -> tuple[Domain | None, bool]:
    """The domain, and whether that is known: libvirt may go on with a save whose caller is gone,
    and until its job has ended nothing of it may be touched. A connection that broke is made anew.
    """
    begin = answered = time.monotonic()
    domain: Domain | None = None
    while True:
        try:
            domain = await connection.find(uuid)
        except LibvirtError:
            patience_seconds = _WAIT_SECONDS if await connection.again() else _BACK_SECONDS
            if time.monotonic() > answered + patience_seconds:
                return domain, False
        else:
            answered = time.monotonic()
            if domain is None or not (domain.job or domain.starting or domain.held_to_save):
                return domain, True
            # libvirt has failed to let it go on, and does not try again.
            if not (domain.job or domain.starting) and answered > begin + _BACK_SECONDS:
                return domain, True
            if answered > begin + _WAIT_SECONDS:
                return domain, False
        await asyncio.sleep(_LOOK_SECONDS)


def advice_on(now: Domain | None, *, known: bool, path: str) -> str:
    """What to do about what `settled` found of a domain that was not saved into ``path``."""
    if not known:
        name = now.name if now is not None else ""
        return (
            "Whether libvirt goes on saving it is not known: look with virsh domstate "
            f"{name} when it answers again, then run this again: {path} is published if it is "
            "whole, and removed if the domain still runs."
        )
    if now is not None and now.active:
        return f"The domain is {now.state}, as libvirt left it."
    return whereabouts(now)
