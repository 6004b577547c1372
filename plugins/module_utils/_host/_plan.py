# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a suspend of a host would do, and why: pure functions from what was seen to one plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from .._errors import Refused
from .._qemu._negotiation import MAPPED_RAM
from ._competing_values import UNIT_RESTART, Starter
from ._forecast import Limits, Load, ends, fitting
from ._guests import HostGuest
from ._order import Place, tiers
from ._requests import DISABLE, SuspendRequest
from ._seen import Seen, Store
from ._wishes import FAIL, LEAVE, SAVE, SHUTDOWN

_MOST_AT_ONCE = 8
_MOST_PER_STORE = 4
_ACTIONS = {SHUTDOWN: "it will be shut down", LEAVE: "it will be left running"}


@dataclass(frozen=True)
class GuestPlan:
    """``action``: save, shutdown, leave, or fail; ``tier``: the first is suspended first."""

    seen: Seen
    action: str
    reason: str
    tier: int
    channels: int | None = None
    predicted_seconds: float | None = None

    @property
    def guest(self) -> HostGuest:
        return self.seen.guest

    @property
    def key(self) -> str:
        return self.guest.key

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        wish, save = self.seen.wish, self.seen.save
        plan: dict[str, t.Any] = {
            "name": self.guest.name,
            "uuid": self.guest.uuid,
            "action": self.action,
            "reason": self.reason,
            "tier": self.tier,
            "priority": wish.priority,
            "group": wish.group,
            "depends_on": list(wish.depends_on),
            "policy": wish.policy or FAIL,
            "guest_state": self.guest.state,
            "path": self.seen.path,
            "at_most_bytes": self.seen.at_most_bytes,
            "predicted_seconds": rounded(self.predicted_seconds),
        }
        if save is not None:
            single = save.as_dict()
            for key in ("image_version", "image_format", "layout", "bypass_cache"):
                plan[key] = single[key]
            plan["bypass_cache_proved"] = single["bypass_cache_proved"]
            plan["parallel_channels"] = self.channels or single["parallel_channels"]
            plan["replaces"] = single["replaces"]
            plan["recovers"] = single["recovers"]
        return plan


@dataclass(frozen=True)
class HostPlan:
    """``guests`` in the order of the suspend. ``problems``: why nothing would be begun;
    ``not_here``: names in option guests that no guest here has."""

    guests: tuple[GuestPlan, ...]
    limits: Limits
    stores: tuple[Store, ...]
    window_seconds: float | None
    predicted_seconds: float | None
    competing: tuple[Starter, ...]
    problems: tuple[str, ...]
    not_here: tuple[str, ...]

    def tiers(self) -> tuple[tuple[GuestPlan, ...], ...]:
        """Those that something is done to, by tier."""
        acted = [plan for plan in self.guests if plan.action in (SAVE, SHUTDOWN)]
        numbers = sorted({plan.tier for plan in acted})
        return tuple(tuple(p for p in acted if p.tier == number) for number in numbers)

    def concerns(self, starter: Starter) -> bool:
        """Whether it is about a guest that is to be saved."""
        return concerned(starter, self.guests)

    def needed_bytes(self, device: int) -> int:
        """What the saves into one store need at most."""
        return sum(
            plan.seen.at_most_bytes
            for plan in self.guests
            if plan.action == SAVE and plan.seen.device == device
        )

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {
            "guests": [plan.as_dict() for plan in self.guests],
            "max_concurrent": self.limits.total,
            "max_concurrent_per_store": self.limits.per_store,
            "window_seconds": self.window_seconds,
            "predicted_seconds": rounded(self.predicted_seconds),
            "stores": [
                {
                    "path": store.path,
                    "free_bytes": store.free_bytes,
                    "needed_bytes": self.needed_bytes(store.device),
                    "measured_bytes_per_second": round(rate) if rate else None,
                }
                for store in self.stores
                for rate in [store.rate or store.speed]
            ],
            "competing": [starter.as_dict() for starter in self.competing],
            "problems": list(self.problems),
            "not_here": list(self.not_here),
        }


def rounded(seconds: float | None) -> float | None:
    """For results."""
    return round(seconds, 3) if seconds is not None else None


def choose_limits(asked: int | None, cpu_count: int) -> Limits:
    """How many guests at once: as asked, else one for each processor, and few enough a store that
    each of them is fast."""
    if asked is not None:
        return Limits(asked, asked)
    total = max(2, min(cpu_count, _MOST_AT_ONCE))
    return Limits(total, min(total, _MOST_PER_STORE))


def make_plan(
    request: SuspendRequest,
    seen: t.Sequence[Seen],
    stores: t.Sequence[Store],
    competing: t.Sequence[Starter],
    unanswered: t.Sequence[str] = (),
    *,
    cpu_count: int,
) -> HostPlan:
    """The whole plan. ``unanswered``: why monitors told nothing behind which guests may be. Raises
    `Refused` for dependencies in a circle, and for guests that cannot be told apart."""
    _refuse_twins([one.guest for one in seen])
    limits = choose_limits(request.max_concurrent, cpu_count)
    tier_of, position = _tiers_of(seen)
    in_order = sorted(seen, key=lambda one: position[one.guest.key])
    beside = min(limits.per_store, max(1, len(seen))) - 1
    rates = {store.device: store.rate_beside(beside) for store in stores}
    loads = [_load(one, tier_of[one.guest.key], rates) for one in in_order if one.save is not None]
    roomy = _with_room(loads, stores)
    anyhow = frozenset(one.guest.key for one in seen if one.wish.policy == SAVE)
    timed = [load for load in loads if load.key in roomy | anyhow]
    timely = _in_time(request, timed, limits, anyhow)
    together = min(limits.total, max(1, len(loads)))
    seconds = {load.key: load.seconds for load in loads}
    plans = []
    for one in in_order:
        key = one.guest.key
        action, reason = decide(one, room=key in roomy, in_time=timely is None or key in timely)
        plans.append(
            GuestPlan(
                one,
                action,
                reason,
                tier_of[key],
                channels=_share(request, one, cpu_count, together) if action == SAVE else None,
                predicted_seconds=seconds.get(key) if action == SAVE else None,
            )
        )
    saved = {plan.key for plan in plans if plan.action == SAVE}
    finished = ends([load for load in loads if load.key in saved], limits)
    return HostPlan(
        guests=tuple(plans),
        limits=limits,
        stores=tuple(stores),
        window_seconds=request.window_seconds,
        predicted_seconds=max(finished.values(), default=0.0) if finished is not None else None,
        competing=tuple(competing),
        problems=(*_problems(plans), *unanswered, *_competing_problems(request, plans, competing)),
        not_here=request.wishes.not_here(one.guest for one in seen),
    )


def _refuse_twins(guests: t.Iterable[HostGuest]) -> None:
    """Of two guests of one UUID, or without one and of one name, a journal could name but one."""
    known: dict[str, HostGuest] = {}
    for guest in guests:
        other = known.setdefault(guest.key, guest)
        if other is not guest:
            raise Refused(
                f"{other.name} ({other.source}) and {guest.name} ({guest.source}) have the same "
                f"UUID or name, {guest.key}, and cannot be told apart. Exclude one of them, or "
                "start it with a -uuid of its own. Nothing was touched."
            )


def decide(one: Seen, *, room: bool, in_time: bool) -> tuple[str, str]:
    """What happens to a guest, and why."""
    policy = one.wish.policy or FAIL
    if one.save is None:
        why = one.refusal or "it cannot be saved"
        return (FAIL if policy == SAVE else policy), _with(why, policy)
    if room and in_time:
        return SAVE, f"it is {one.guest.state}"
    why = (
        "its image does not fit into the window"
        if room
        else f"its store has no room for up to {one.at_most_bytes} bytes beside the others"
    )
    if policy == SAVE:
        return SAVE, f"{why}, and its policy is to save it all the same"
    return policy, _with(why, policy)


def _with(why: str, policy: str) -> str:
    return f"{why.rstrip('.')}; {_ACTIONS[policy]}" if policy in _ACTIONS else why.rstrip(".")


def _tiers_of(seen: t.Sequence[Seen]) -> tuple[dict[str, int], dict[str, int]]:
    """By key: the tier, and the place in the order of all."""
    by_name: dict[str, list[str]] = {}
    for one in seen:
        for name in sorted({one.guest.name, one.guest.uuid or one.guest.name}):
            by_name.setdefault(name, []).append(one.guest.key)
    places = [
        Place(
            key=one.guest.key,
            priority=one.wish.priority,
            depends_on=tuple(key for name in one.wish.depends_on for key in by_name.get(name, ())),
            group=one.wish.group,
            size_bytes=one.at_most_bytes,
        )
        for one in seen
    ]
    ordered = tiers(places)
    tier_of = {key: number for number, tier in enumerate(ordered) for key in tier}
    return tier_of, {key: number for number, key in enumerate(key for t_ in ordered for key in t_)}


def _load(one: Seen, tier: int, rates: t.Mapping[int, float | None]) -> Load:
    speed = rates.get(one.device)
    return Load(
        key=one.guest.key,
        tier=tier,
        store=one.device,
        seconds=one.at_most_bytes / speed if speed else None,
        unit=f"group {one.wish.group}" if one.wish.group else one.guest.key,
        rank=one.wish.priority,
        size_bytes=one.at_most_bytes,
    )


def _with_room(loads: t.Sequence[Load], stores: t.Sequence[Store]) -> frozenset[str]:
    """Keys of those whose images fit into their stores all together."""
    room = {store.device: store.free_bytes for store in stores}
    fitting_keys: set[str] = set()
    units: dict[str, list[Load]] = {}
    for load in loads:
        units.setdefault(load.unit, []).append(load)
    for inside in sorted(units.values(), key=_importance):
        left = dict(room)
        for load in inside:
            left[load.store] = left.get(load.store, 0) - load.size_bytes
        if all(left[load.store] >= 0 for load in inside):
            room = left
            fitting_keys |= {load.key for load in inside}
    return frozenset(fitting_keys)


def _importance(inside: t.Sequence[Load]) -> tuple[int, int, str]:
    return (
        -max(load.rank for load in inside),
        sum(load.size_bytes for load in inside),
        inside[0].unit,
    )


def _in_time(
    request: SuspendRequest, loads: t.Sequence[Load], limits: Limits, anyhow: frozenset[str]
) -> frozenset[str] | None:
    if request.window_seconds is None:
        return None
    return fitting(loads, limits, request.window_seconds, anyhow)


def _share(request: SuspendRequest, one: Seen, cpu_count: int, together: int) -> int | None:
    """Channels of each of several saves at once; None where a number was asked for, or where the
    save's own plan is right."""
    asked = "parallel_channels" in {**request.defaults, **one.wish.save}
    if asked or one.save is None or one.save.kind.layout != MAPPED_RAM or together == 1:
        return None
    return max(1, min(one.save.negotiated.channels, cpu_count // together))


def _problems(plans: t.Iterable[GuestPlan]) -> list[str]:
    return [f"{plan.guest.name}: {plan.reason}" for plan in plans if plan.action == FAIL]


def concerned(starter: Starter, plans: t.Iterable[GuestPlan]) -> bool:
    """Whether it is about a guest that is to be saved."""
    saved = {plan.guest.name for plan in plans if plan.action == SAVE}
    return bool(saved) and (not starter.guests or not saved.isdisjoint(starter.guests))


def _competing_problems(
    request: SuspendRequest, plans: t.Sequence[GuestPlan], competing: t.Iterable[Starter]
) -> list[str]:
    """Those that would start or stop guests behind our back and are not switched off. A unit with
    Restart= is stopped in place of QEMU then."""
    disable = request.competing == DISABLE
    return [
        f"{starter.what.rstrip('.')}. {starter.advice}"
        for starter in competing
        if starter.blocks
        and concerned(starter, plans)
        and not (disable and (starter.can_disable or starter.kind == UNIT_RESTART))
    ]


def without(plan: GuestPlan, action: str, reason: str) -> GuestPlan:
    """The plan of a guest for which there turned out to be no time."""
    return replace(plan, action=action, reason=reason, predicted_seconds=None)
