# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Who else would start or stop guests of this host behind our back: found and named.

A guest that was suspended must not be started by anybody else before it is resumed, on disks that
its image needs as they are; and while guests are being saved nobody else may save or end them.
"""

from __future__ import annotations

import typing as t

from ._competing_agents import agent
from ._competing_libvirt import auto_shutdown, autostart, libvirt_guests
from ._competing_look import look
from ._competing_shutdown import host_shutdown
from ._competing_units import unit_restart, unit_start
from ._competing_values import Observed, Starter
from ._guests import HostGuest


async def find(
    uri: str | None,
    guests: t.Sequence[HostGuest],
    qemu_conf: str,
    named_units: t.Mapping[str, str] | None = None,
) -> tuple[Starter, ...]:
    """Who competes for these guests now. Changes nothing.

    ``uri``: the libvirt daemon's, None when no guest is a domain; ``qemu_conf``: the file that this
    daemon reads; ``named_units``: by the guest's name the ``systemd_unit`` that its save is given.
    What cannot be read is told as competing, or as not known; only `SystemdError` is raised, when
    systemd does not answer.
    """
    return starters(await look(uri, guests, qemu_conf, named_units or {}))


def starters(observed: Observed) -> tuple[Starter, ...]:
    """The decision: those that block first, then in the order of their kinds."""
    guests = observed.guests
    found: list[Starter] = [*autostart(guests)]
    if observed.libvirt_guests is not None:
        found += libvirt_guests(observed.libvirt_guests, guests)
    if observed.auto_shutdown is not None:
        found += auto_shutdown(observed.auto_shutdown, guests)
    for unit in observed.units:
        found += [*unit_restart(unit), *unit_start(unit)]
    found += [agent(seen) for seen in observed.agents]
    if observed.shutdown is not None:
        found.append(host_shutdown(observed.shutdown))
    return tuple(sorted(found, key=lambda starter: not starter.blocks))
