# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""In which order guests go: tiers, one after the other, made of guests that may go together."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import Refused


@dataclass(frozen=True)
class Place:
    """What decides a guest's place. ``priority``: higher is suspended later and resumed earlier;
    ``depends_on``: keys of guests that it needs: suspended after it, resumed before it;
    ``group``: stops and runs together with the others of that name."""

    key: str
    priority: int = 0
    depends_on: tuple[str, ...] = ()
    group: str | None = None
    size_bytes: int = 0


@dataclass(frozen=True)
class _Unit:
    """A group, or a guest without one."""

    name: str
    members: tuple[Place, ...]
    needs: frozenset[str]

    @property
    def priority(self) -> int:
        return max(member.priority for member in self.members)


def tiers(places: t.Sequence[Place]) -> tuple[tuple[str, ...], ...]:
    """Keys by tier, in the order of a suspend; a resume takes the tiers from the end.

    Inside a tier the largest come first, groups in one piece. A guest that another one needs counts
    with the priority of that one where it is higher. Raises `Refused` for a circle, naming it.
    Dependencies on keys that are not in ``places`` are no matter.
    """
    units = _units(places)
    _refuse_circles(units)
    needed_by = _needed_by(units)
    levels: dict[str, tuple[int, int]] = {}
    for name in units:
        _level(name, units, needed_by, levels)
    ordered: dict[tuple[int, int], list[_Unit]] = {}
    for name in units:
        ordered.setdefault(levels[name], []).append(units[name])
    return tuple(_by_size(ordered[level]) for level in sorted(ordered))


def _units(places: t.Sequence[Place]) -> dict[str, _Unit]:
    unit_of = {place.key: f"group {place.group}" if place.group else place.key for place in places}
    members: dict[str, list[Place]] = {}
    for place in places:
        members.setdefault(unit_of[place.key], []).append(place)
    return {
        name: _Unit(
            name,
            tuple(inside),
            frozenset(
                unit_of[needed]
                for place in inside
                for needed in place.depends_on
                if needed in unit_of and unit_of[needed] != name
            ),
        )
        for name, inside in members.items()
    }


def _refuse_circles(units: t.Mapping[str, _Unit]) -> None:
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = " needs ".join((*way[way.index(name) :], name))
            raise Refused(f"The guests depend on each other in a circle: {circle}.")
        if name not in done:
            for needed in sorted(units[name].needs):
                follow(needed, (*way, name))
            done.add(name)

    for name in units:
        follow(name, ())


def _needed_by(units: t.Mapping[str, _Unit]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in units}
    for name, unit in units.items():
        for needed in unit.needs:
            found[needed].append(name)
    return found


def _level(
    name: str,
    units: t.Mapping[str, _Unit],
    needed_by: t.Mapping[str, t.Sequence[str]],
    known: dict[str, tuple[int, int]],
) -> tuple[int, int]:
    """Priority that counts, and how many of that priority have to be suspended before."""
    if name not in known:
        above = [_level(other, units, needed_by, known) for other in needed_by[name]]
        priority = max([units[name].priority, *(level[0] for level in above)])
        before = [level[1] + 1 for level in above if level[0] == priority]
        known[name] = priority, max(before, default=0)
    return known[name]


def _by_size(units: t.Sequence[_Unit]) -> tuple[str, ...]:
    def size(unit: _Unit) -> int:
        return sum(member.size_bytes for member in unit.members)

    return tuple(
        member.key
        for unit in sorted(units, key=lambda unit: (-size(unit), unit.name))
        for member in sorted(unit.members, key=lambda place: (-place.size_bytes, place.key))
    )
