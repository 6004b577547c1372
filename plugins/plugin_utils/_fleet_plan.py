# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The plan of a fleet: what each host said it would do, and in which order hosts and guests go."""

from __future__ import annotations

import glob
import typing as t
from dataclasses import dataclass, replace

from ..module_utils._errors import Refused
from ._fleet_order import (
    RESUME,
    WINDOW,
    FleetGuest,
    Wave,
    batches_of,
    hosts_in_order,
    split_by_batches,
    waves_of,
)

READY, NOTHING, REFUSED, UNREACHABLE = "ready", "nothing", "refused", "unreachable"
# What a host's plan does to a guest; other actions leave it alone.
_ACTS = ("save", "shutdown", "restore", "continue", "finish", "ended", "lost")
# Clocks that differ less may as well be told apart by ssh alone.
SKEW_SECONDS = 5.0


def _skew_seconds(clock: t.Mapping[str, t.Any]) -> float | None:
    """By how much a host's clock is off at least: it was read at some moment between ``asked`` and
    ``answered`` of the controller's."""
    asked, told, answered = (number_of(clock.get(key)) for key in ("asked", "told", "answered"))
    if asked is None or told is None or answered is None:
        return None
    return told - asked if told < asked else max(0.0, told - answered)


def number_of(told: t.Any) -> float | None:
    """A number of a playbook's variable, where ansible-core 2.18 may have made text of it."""
    return None if told is None or told in ("", "None") else float(told)


@dataclass(frozen=True)
class HostLook:
    """What a look at one host told. ``result``: of the host module in check mode, also where it
    refused; ``error``: why it refused, or why the host could not be reached; ``skew_seconds``: by
    how much its clock is ahead of the controller's at least; ``resumes_at_boot``: None where
    unknown."""

    host: str
    result: t.Mapping[str, t.Any]
    error: str | None = None
    unreachable: bool = False
    skew_seconds: float | None = None
    resumes_at_boot: bool | None = None

    @classmethod
    def of(cls, told: t.Mapping[str, t.Any]) -> HostLook:
        """From what the playbook collected."""
        result = told.get("result") or {}
        at_boot = told.get("resumes_at_boot")
        unreachable = bool(told.get("unreachable"))
        failed = unreachable or bool(told.get("failed"))
        return cls(
            host=str(told["host"]),
            result=result,
            error=str(told.get("error") or result.get("msg") or "no reason was given")
            if failed
            else None,
            unreachable=unreachable,
            skew_seconds=_skew_seconds(told.get("clock") or {}),
            resumes_at_boot=None if at_boot in (None, "") else bool(at_boot),
        )

    @property
    def guests(self) -> tuple[FleetGuest, ...]:
        """Those that something is to be done to."""
        return tuple(self._guest(guest) for guest in self.told if guest.get("action") in _ACTS)

    @property
    def planned(self) -> tuple[FleetGuest, ...]:
        """All that it told of."""
        return tuple(self._guest(guest) for guest in self.told)

    def _guest(self, guest: t.Mapping[str, t.Any]) -> FleetGuest:
        return FleetGuest(
            host=self.host,
            name=str(guest["name"]),
            uuid=guest.get("uuid"),
            priority=int(guest.get("priority") or 0),
            depends_on=tuple(guest.get("depends_on") or ()),
            group=guest.get("group"),
        )

    @property
    def told(self) -> t.Sequence[t.Mapping[str, t.Any]]:
        """All guests: those of the plan, and those of the journal that are no longer there."""
        planned = list((self.result.get("plan") or {}).get("guests") or ())
        known = {guest["name"] for guest in planned}
        others = self.result.get("guests") or ()
        return [*planned, *(guest for guest in others if guest["name"] not in known)]

    @property
    def state(self) -> str:
        if self.unreachable:
            return UNREACHABLE
        if self.error is not None:
            return REFUSED
        return READY if self.guests else NOTHING

    def as_dict(self, waves: t.Sequence[Wave]) -> dict[str, t.Any]:
        """As playbooks and report show it. ``waves``: of the fleet; the host's own part of each."""
        wave_of = {name: i for i, wave in enumerate(waves) for name in wave.get(self.host, ())}
        plan = self.result.get("plan") or {}
        return {
            "host": self.host,
            "state": self.state,
            "error": self.error,
            "skew_seconds": self.skew_seconds,
            "resumes_at_boot": self.resumes_at_boot,
            "predicted_seconds": plan.get("predicted_seconds"),
            "guests": [
                {
                    "name": guest["name"],
                    "uuid": guest.get("uuid"),
                    "action": guest.get("action"),
                    "reason": guest.get("reason"),
                    "wave": wave_of.get(guest["name"]),
                    "at_most_bytes": guest.get("at_most_bytes"),
                    "predicted_seconds": guest.get("predicted_seconds"),
                }
                for guest in self.told
            ],
        }


@dataclass(frozen=True)
class FleetPlan:
    """``looks`` in the order in which hosts are taken; ``waves`` in the order in which they go;
    ``keepers``: whether each batch gets a host that is none. Ansible ends a playbook, its report
    included, when all hosts of a batch are lost, which a keeper never is (run in
    ansible/executor/playbook_executor.py)."""

    looks: tuple[HostLook, ...]
    waves: tuple[Wave, ...]
    batches: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    keepers: bool

    def as_dict(self) -> dict[str, t.Any]:
        """As playbooks and report use it."""
        return {
            "hosts": [look.as_dict(self.waves) for look in self.looks],
            "wave_count": len(self.waves),
            "in_order": self._in_order(),
            "batch_sizes": [len(batch) + self.keepers for batch in self.batches] or ["100%"],
            "batches": [list(batch) for batch in self.batches],
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }

    def _in_order(self) -> list[dict[str, t.Any]]:
        """Hosts of the play, batch by batch, each with its part of each wave: patterns that are
        names, for the host's module takes patterns."""
        found: list[dict[str, t.Any]] = []
        for number, batch in enumerate(self.batches, start=1):
            found += [
                {
                    "host": host,
                    "keeper": False,
                    "names": [name for wave in self.waves for name in wave.get(host, ())],
                    "waves": [
                        [glob.escape(name) for name in wave.get(host, ())] for wave in self.waves
                    ],
                }
                for host in batch
            ]
            if self.keepers:
                found.append(
                    {"host": f"vmfleet-batch-{number}", "keeper": True, "names": [], "waves": []}
                )
        return found


def make_fleet_plan(
    looks: t.Sequence[HostLook], serial: t.Sequence[int | str], verb: str
) -> FleetPlan:
    """``verb``: suspend, resume, or window (each batch is suspended and resumed before the next).
    Raises `Refused` for dependencies in a circle."""
    guests = [guest for look in looks if look.error is None for guest in look.guests]
    resume = verb == RESUME
    down, circle = _waves(guests, resume=resume)
    by_host = {look.host: look for look in looks}
    order = hosts_in_order(list(by_host), down, resume=resume)
    batches = batches_of(order, serial)
    return FleetPlan(
        looks=tuple(by_host[host] for host in order),
        waves=tuple(reversed(down)) if resume else down,
        batches=batches,
        problems=split_by_batches(guests, batches, verb),
        warnings=(*_warnings(looks, resume=resume), *circle, *_left_behind(looks, verb)),
        keepers=verb == WINDOW,
    )


def _waves(
    guests: t.Sequence[FleetGuest], *, resume: bool
) -> tuple[tuple[Wave, ...], tuple[str, ...]]:
    """And what is to be said of them. A circle is no reason to leave guests suspended: they may
    have been suspended at different times, each without the other."""
    try:
        return waves_of(guests), ()
    except Refused as exc:
        if not resume:
            raise
        alone = [replace(guest, priority=0, depends_on=()) for guest in guests]
        return waves_of(alone), (f"{exc.message} They are resumed in no order across hosts.",)


def _left_behind(looks: t.Sequence[HostLook], verb: str) -> t.Iterator[str]:
    """Who is not there afterwards as before, although nothing failed."""
    if verb == RESUME:
        return
    able = [look for look in looks if look.error is None]
    shut = [guest["name"] for look in able for guest in look.told if guest["action"] == "shutdown"]
    if shut:
        yield (
            f"{', '.join(shut)}: will be shut down, by their policy. Nobody starts them again: "
            "that is for who runs them."
        )
    goes = {name: guest for look in able for guest in look.guests for name in guest.names}
    for look in looks:
        for client in look.planned if look.error is not None else ():
            needed = sorted(goes[name].key for name in client.depends_on if name in goes)
            if needed:
                yield (
                    f"{client.key}: its host is left out, so that it runs on, and what it needs "
                    f"is suspended: {', '.join(needed)}."
                )


def _warnings(looks: t.Sequence[HostLook], *, resume: bool) -> t.Iterator[str]:
    for look in looks:
        if look.skew_seconds is not None and abs(look.skew_seconds) >= SKEW_SECONDS:
            way = "ahead of" if look.skew_seconds > 0 else "behind"
            yield (
                f"{look.host}: its clock is {abs(look.skew_seconds):.0f} s {way} the controller's, "
                "by which the window is kept. Until when guests are held at boot goes by its own."
            )
        if look.resumes_at_boot is False and not resume:
            yield (
                f"{look.host}: it does not resume its guests when it boots (role vm_resume). "
                "Should it be unreachable later, somebody has to."
            )


def no_time(forecast: t.Mapping[str, t.Any]) -> list[str]:
    """A warning about the hosts that the window has no time for."""
    left_out = forecast["left_out"]
    if not left_out:
        return []
    return [
        f"The window has no time for {len(left_out)} hosts, whose guests would run on: "
        f"{', '.join(left_out)}."
    ]


def plan_lines(plan: t.Mapping[str, t.Any]) -> list[str]:
    """The plan, for people: those that cannot be begun first."""
    rank = {UNREACHABLE: 0, REFUSED: 1, READY: 2, NOTHING: 3}
    lines = [f"PROBLEM: {problem}" for problem in plan["problems"]]
    lines += [f"NOT YET: {early}" for early in plan["too_early"]]
    lines += [f"WARNING: {warning}" for warning in plan["warnings"]]
    if plan["protected"]:
        lines.append(f"Never suspended: {', '.join(plan['protected'])}")
    lines.append(_summary(plan))
    for host in sorted(plan["hosts"], key=lambda host: rank[host["state"]]):
        lines.append(_host_line(host))
        several = plan["wave_count"] > 1
        for guest in host["guests"]:
            wave = f", wave {guest['wave'] + 1}" if several and guest["wave"] is not None else ""
            lines.append(
                f"  {guest['name']}: {guest['action']}{wave}{_takes(guest)} ({guest['reason']})"
            )
    return lines


def _summary(plan: t.Mapping[str, t.Any]) -> str:
    ready = [host for host in plan["hosts"] if host["state"] == READY]
    guests = [guest for host in ready for guest in host["guests"] if guest["action"] in _ACTS]
    size = sum(guest["at_most_bytes"] or 0 for guest in guests)
    words = [f"{len(ready)} of {len(plan['hosts'])} hosts", f"{len(guests)} guests"]
    if size:
        words.append(f"at most {size / (1 << 30):.1f} GiB")
    words += _time_in_all(plan)
    if len(plan["batches"]) > 1:
        words.append(f"in {len(plan['batches'])} batches")
    return "In all: " + ", ".join(words)


def _time_in_all(plan: t.Mapping[str, t.Any]) -> list[str]:
    forecast = plan["forecast"]
    if forecast is None:
        return []
    if forecast["seconds"] is None:
        return [f"time unknown (nothing was measured yet on {', '.join(forecast['unknown'])})"]
    return [f"about {forecast['seconds']:.0f} s"]


def _host_line(host: t.Mapping[str, t.Any]) -> str:
    if host["state"] == UNREACHABLE:
        return f"{host['host']}: UNREACHABLE: {host['error']}"
    if host["state"] == REFUSED:
        return f"{host['host']}: REFUSED: {host['error']}"
    if host["state"] == NOTHING:
        return f"{host['host']}: nothing to do"
    acted = [guest for guest in host["guests"] if guest["action"] in _ACTS]
    return f"{host['host']}: {len(acted)} guests{_takes(host)}"


def _takes(what: t.Mapping[str, t.Any]) -> str:
    seconds = what["predicted_seconds"]
    return f", {seconds:.1f} s" if seconds is not None else ""
