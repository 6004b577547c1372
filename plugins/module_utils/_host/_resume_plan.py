# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a resume of a host would do, and why: pure functions from what was seen to one plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._restore._outcome import RestoreOutcome
from ._bring_back import Returning
from ._forecast import Limits
from ._journal import Entry
from ._order import Place, tiers

RESTORE, NOTHING, CONTINUE, FINISH, LOST, REFUSED = (
    "restore",
    "nothing",
    "continue",
    "finish",
    "lost",
    "refused",
)
# Of the journal's states, those of guests whose image is theirs to come back from.
SAVED = ("saved", "verified", "restoring")
# The suspend was begun, and did not end.
BEGUN = ("planned", "saving")
# Nothing is left to do for these, and they keep no journal open.
OVER = ("running", "failed", "left", "shutdown", "crashed")


@dataclass(frozen=True)
class Awaited:
    """A guest of the journal and what is to be done. ``single``: what its own restore foresees,
    where it could; ``guest_state``: as it was found; ``stale_image``: an older image of one that is
    lost."""

    returning: Returning
    action: str
    reason: str
    guest_state: str = "absent"
    single: RestoreOutcome | None = None
    stale_image: str | None = None

    @property
    def entry(self) -> Entry:
        return self.returning.entry

    @property
    def acts(self) -> bool:
        return self.action in (RESTORE, CONTINUE, FINISH)

    def as_dict(self, tier: int | None) -> dict[str, t.Any]:
        """As modules return it."""
        plan: dict[str, t.Any] = {
            "name": self.entry.name,
            "uuid": self.entry.uuid,
            "action": self.action,
            "reason": self.reason,
            "tier": tier,
            "priority": self.entry.priority,
            "group": self.entry.group,
            "depends_on": list(self.entry.depends_on),
            "path": self.entry.path,
        }
        if self.single is not None:
            known = self.single.plan.as_dict()
            for key in ("layout", "load", "run_afterwards", "parallel_channels", "bypass_cache"):
                plan[key] = known[key]
        return plan


@dataclass(frozen=True)
class ResumePlan:
    """``order``: keys by tier, the first is resumed first."""

    guests: tuple[Awaited, ...]
    order: tuple[tuple[str, ...], ...]
    limits: Limits

    def units(self) -> list[list[list[Awaited]]]:
        """Tiers of units of guests that come back: one each, or the members of a group."""
        acting = {one.entry.key: one for one in self.guests if one.acts}
        found = []
        for tier in self.order:
            units: dict[str, list[Awaited]] = {}
            for key in tier:
                if key in acting:
                    group = acting[key].entry.group
                    units.setdefault(f"group {group}" if group else key, []).append(acting[key])
            found.append(list(units.values()))
        return [tier for tier in found if tier]

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        number = {key: place for place, tier in enumerate(self.order) for key in tier}
        return {
            "guests": [one.as_dict(number.get(one.entry.key)) for one in self.guests],
            "max_concurrent": self.limits.total,
            "max_concurrent_per_store": self.limits.per_store,
        }


def make_resume_plan(guests: t.Sequence[Awaited], limits: Limits) -> ResumePlan:
    """The tiers of the suspend from the end, each the largest first."""
    keys = {name: one.entry.key for one in guests for name in (one.entry.name, one.entry.uuid)}
    ordered = tiers(
        [
            Place(
                key=one.entry.key,
                priority=one.entry.priority,
                depends_on=tuple(keys[name] for name in one.entry.depends_on if name in keys),
                group=one.entry.group,
                size_bytes=one.entry.bytes or 0,
            )
            for one in guests
        ]
    )
    order = tuple(reversed(ordered))
    place = {key: number for number, key in enumerate(key for tier in order for key in tier)}
    return ResumePlan(tuple(sorted(guests, key=lambda one: place[one.entry.key])), order, limits)


def is_over(entries: t.Iterable[Entry]) -> bool:
    """Whether a resume has nothing left to do, ever."""
    return all(entry.state in OVER for entry in entries)


def waits(entry: Entry) -> bool:
    """Whether a guest was touched and does not run as it ran: a resume has to see to it, or the
    next suspend."""
    return entry.state in (*SAVED, "saving") or (entry.state in BEGUN and entry.held)
