# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""In which order a fleet's guests and hosts go: waves of guests, and hosts in batches."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..module_utils._host._order import Place, tiers

SUSPEND, RESUME, WINDOW = "suspend", "resume", "window"


@dataclass(frozen=True)
class FleetGuest:
    """A guest of the fleet that something is to be done to, as its host's plan names it."""

    host: str
    name: str
    uuid: str | None = None
    priority: int = 0
    depends_on: tuple[str, ...] = ()
    group: str | None = None

    @property
    def key(self) -> str:
        return f"{self.name} on {self.host}"

    @property
    def names(self) -> tuple[str, ...]:
        """By which others may need it."""
        return tuple(sorted({self.name, self.uuid or self.name}))


Wave = t.Mapping[str, t.Tuple[str, ...]]


def waves_of(guests: t.Sequence[FleetGuest]) -> tuple[Wave, ...]:
    """Guests' names by host, wave by wave, in the order of a suspend; a resume takes the waves from
    the end.

    A wave ends on all hosts before the next one begins on any. Where no guest of one host matters
    to one of another there is a single one: the order within a host is the host's own affair.
    Raises `Refused` for dependencies in a circle.
    """
    needs = _needs(guests)
    host_of = {guest.key: guest.host for guest in guests}
    crossing = any(host_of[key] != host_of[other] for key in needs for other in needs[key])
    ordered = tiers(
        [
            Place(guest.key, guest.priority, tuple(sorted(needs[guest.key])), guest.group)
            for guest in guests
        ]
    )
    several = len(set(host_of.values())) > 1 and len({guest.priority for guest in guests}) > 1
    if not (crossing or several):
        ordered = (tuple(guest.key for guest in guests),) if guests else ()
    by_key = {guest.key: guest for guest in guests}
    return tuple(_by_host([by_key[key] for key in tier]) for tier in ordered)


def hosts_in_order(
    hosts: t.Sequence[str], waves: t.Sequence[Wave], *, resume: bool
) -> tuple[str, ...]:
    """Hosts so that those with guests of early waves come first, else as they were given."""
    last = {host: number for number, wave in enumerate(waves) for host in wave}
    sign = -1 if resume else 1
    return tuple(sorted(hosts, key=lambda host: sign * last.get(host, 0)))


def batches_of(
    hosts: t.Sequence[str], serial: t.Sequence[int | str]
) -> tuple[tuple[str, ...], ...]:
    """As Ansible's ``serial`` divides a play's hosts (ansible/executor/playbook_executor.py)."""
    left, found = list(hosts), []
    for number in range(len(hosts)):
        if not left:
            break
        size = serial[min(number, len(serial) - 1)]
        if isinstance(size, str):
            size = int(float(size[:-1]) / 100 * len(hosts)) or 1
        found.append(tuple(left[:size]))
        left = left[size:]
    return tuple(found)


def split_by_batches(
    guests: t.Sequence[FleetGuest], batches: t.Sequence[t.Sequence[str]], verb: str
) -> tuple[str, ...]:
    """Dependencies that these batches would break: sentences for the operator.

    A guest is suspended before those that it needs and resumed after them, so that its batch may
    not be the later one, and may not be the earlier one; in a maintenance window, where each batch
    is suspended and resumed before the next, both have to be in one.
    """
    batch = {host: number for number, hosts in enumerate(batches) for host in hosts}
    by_key = {guest.key: guest for guest in guests}
    found = []
    for key, needed in sorted(_needs(guests).items()):
        for other in sorted(needed):
            mine, its = batch[by_key[key].host], batch[by_key[other].host]
            if {SUSPEND: mine > its, RESUME: mine < its, WINDOW: mine != its}[verb]:
                found.append(
                    f"{key} needs {other}, and fleet_serial puts these hosts into batches "
                    f"{mine + 1} and {its + 1}. Put them into one batch (fleet_serial=100%)."
                )
    return tuple(found)


def _needs(guests: t.Sequence[FleetGuest]) -> dict[str, set[str]]:
    """By key, the keys of the guests that it needs: of that name or UUID on its own host, where
    there is one, else anywhere."""
    by_name: dict[str, list[FleetGuest]] = {}
    for guest in guests:
        for name in guest.names:
            by_name.setdefault(name, []).append(guest)
    found: dict[str, set[str]] = {}
    for guest in guests:
        needed = found.setdefault(guest.key, set())
        for name in guest.depends_on:
            meant = by_name.get(name, [])
            near = [other for other in meant if other.host == guest.host]
            needed |= {other.key for other in near or meant}
    return found


def _by_host(guests: t.Iterable[FleetGuest]) -> Wave:
    found: dict[str, tuple[str, ...]] = {}
    for guest in guests:
        found[guest.host] = (*found.get(guest.host, ()), guest.name)
    return found
