# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a run of a fleet's playbook did, as one object: what the JSON holds and the page shows."""

from __future__ import annotations

import datetime
import typing as t

from ._fleet_gate import span
from ._fleet_guests import guests_of, rate
from ._fleet_order import WINDOW
from ._fleet_plan import NOTHING, READY, REFUSED, UNREACHABLE
from ._fleet_run import FAILED, LEFT_OUT, LOST, HostRun, Turn
from ._fleet_schedule import begins_of

FORMAT = 1
PLAN = "plan"
PLANNED = "planned"
# Those that somebody has to look after come first.
_RANK = {UNREACHABLE: 0, LOST: 1, FAILED: 2, REFUSED: 3, LEFT_OUT: 4}
_FAILING = frozenset(_RANK)
_MEND = "Mend what it says, and run this again: what is done already is left alone."
_WHAT_TO_DO = {
    UNREACHABLE: "Nothing was begun there, and its guests are as they were. Once it answers "
    "(ansible -m ansible.builtin.ping), run this again.",
    LOST: "Look at its console. Once it answers, run resume_fleet.",
    FAILED: _MEND,
    REFUSED: f"Nothing was begun there, and its guests are as they were. {_MEND}",
    LEFT_OUT: "Run this again once the others are mended, or in another window.",
}
_AFTER_A_WINDOW = "Guests that are still suspended come back with resume_fleet. Mend what it says."


def make_report(
    plan: t.Mapping[str, t.Any],
    runs: t.Sequence[HostRun],
    knobs: t.Mapping[str, t.Any],
    verb: str,
    began: float,
    ended: float,
) -> dict[str, t.Any]:
    """``plan`` and ``knobs``: as their ``as_dict`` gives them; ``verb``: plan, suspend, resume or
    window; ``began`` and ``ended``: of the playbook, in seconds since the epoch. Times in it are
    seconds since ``began``, those of a plan are seconds since its first batch begins."""
    by_host = {run.host: run for run in runs}
    begins = _predicted_begins(plan, knobs["throttle"]) if verb == PLAN else {}
    hosts = [
        {
            **_host(host, by_host.get(host["host"]), began, verb),
            "predicted_began_seconds": begins.get(host["host"]),
        }
        for host in plan["hosts"]
    ]
    hosts.sort(key=lambda host: (_RANK.get(host["state"], len(_RANK)), host["host"]))
    report: dict[str, t.Any] = {
        "format": FORMAT,
        "verb": verb,
        "began": iso(began),
        "ended": iso(ended),
        "duration_seconds": round(ended - began, 1),
        "knobs": dict(knobs),
        "problems": list(plan["problems"]),
        "warnings": list(plan["warnings"]),
        "forecast": plan["forecast"],
        "totals": _totals(hosts),
        "hosts": hosts,
    }
    report["lines"] = _lines(report)
    return report


def _predicted_begins(plan: t.Mapping[str, t.Any], throttle: int) -> dict[str, float]:
    """When each host's turn would come: a batch after the one before, hosts side by side in it,
    ``throttle`` at a time, 0 for all at once."""
    hosts = {host["host"]: host for host in plan["hosts"]}
    begins: dict[str, float] = {}
    clock = 0.0
    for batch in plan["batches"]:
        ready = [name for name in batch if hosts[name]["state"] == READY]
        seconds = [hosts[name]["predicted_seconds"] or 0.0 for name in ready]
        offsets, end = begins_of(seconds, throttle)
        begins.update({name: round(clock + one, 2) for name, one in zip(ready, offsets)})
        clock += end
    return begins


def _host(
    planned: t.Mapping[str, t.Any], run: HostRun | None, began: float, verb: str
) -> dict[str, t.Any]:
    state = _state(planned, run)
    complaint = run.complaint if run is not None else planned["error"]
    run = run if run is not None else HostRun(planned["host"])
    guests = guests_of(planned, run, began)
    suspend = _way(guests, "suspend", run.suspended)
    size = sum((guest["suspend"] or {}).get("bytes") or 0 for guest in guests)
    return {
        "host": planned["host"],
        "state": state,
        "failed": state in _FAILING,
        "complaint": complaint,
        "what_to_do": _what_to_do(state, verb),
        "skew_seconds": _rounded(planned["skew_seconds"]),
        "predicted_seconds": planned["predicted_seconds"],
        "taken_seconds": _since(began, run.taken),
        "ended_seconds": _since(began, run.ended),
        "suspend": suspend,
        "maintained": _stretch(run.maintained, began),
        "resume": _way(guests, "resume", run.resumed),
        "bytes": size,
        "bytes_per_second": rate(size, suspend["actual_seconds"] if suspend else None),
        "guests": guests,
    }


def _state(planned: t.Mapping[str, t.Any], run: HostRun | None) -> str:
    if planned["error"] is not None and (run is None or run.left_out is not None):
        return str(planned["state"])
    if run is None:
        return PLANNED if planned["state"] == READY else NOTHING
    return run.state


def _what_to_do(state: str, verb: str) -> str | None:
    if state == FAILED and verb == WINDOW:
        return _AFTER_A_WINDOW
    return _WHAT_TO_DO.get(state)


def _totals(hosts: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    guests = [guest for host in hosts for guest in host["guests"]]
    saves = [one["suspend"] for one in guests if one["suspend"] and not one["suspend"]["failed"]]
    resumes = [one["resume"] for one in guests if one["resume"] and not one["resume"]["failed"]]
    outages = [one["outage"] for one in guests if one["outage"] is not None]
    return {
        "hosts": len(hosts),
        "hosts_failed": sum(host["failed"] for host in hosts),
        "guests": len(guests),
        "guests_failed": sum(guest["error"] is not None for guest in guests),
        "guests_suspended": len(saves),
        "guests_resumed": len(resumes),
        "bytes": sum(save["bytes"] or 0 for save in saves),
        "longest_stopped_seconds": _longest(save["stopped_seconds"] for save in saves),
        "longest_outage_seconds": _longest(outage["actual_seconds"] for outage in outages),
    }


def _longest(seconds: t.Iterable[float | None]) -> float | None:
    return max((one for one in seconds if one is not None), default=None)


def _lines(report: t.Mapping[str, t.Any]) -> list[str]:
    """For people: what kept all from beginning, those that failed, each with its reason, and then
    all in one sentence."""
    lines = [f"PROBLEM: {problem}" for problem in report["problems"]]
    lines += [
        f"{host['host']}: {host['state'].upper().replace('_', ' ')}: {host['complaint']}"
        for host in report["hosts"]
        if host["failed"]
    ]
    totals = report["totals"]
    done = [
        f"{counted(totals[f'guests_{way}'], 'guest')} {way}"
        for way in ("suspended", "resumed")
        if totals[f"guests_{way}"]
    ]
    lines.append(
        f"{totals['hosts'] - totals['hosts_failed']} of {totals['hosts']} hosts without a "
        f"complaint, {' and '.join(done) or 'no guest touched'}, in "
        f"{span(report['duration_seconds'])}"
    )
    return lines


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _stretch(turn: Turn | None, began: float) -> dict[str, float] | None:
    if turn is None:
        return None
    return {
        "began_seconds": round(turn.began - began, 2),
        "actual_seconds": round(turn.ended - turn.began, 2),
    }


def _way(
    guests: t.Sequence[t.Mapping[str, t.Any]], way: str, turns: t.Sequence[Turn]
) -> dict[str, float | None] | None:
    """From when its first guest's turn came to when its last guest was done, which is what hosts
    predict: how long Ansible takes before and after is not among it. None where no guest's came."""
    stretches = [guest[way] for guest in guests if guest[way] is not None]
    if not stretches:
        return None
    began = min(one["began_seconds"] for one in stretches)
    ended = max(one["began_seconds"] + one["actual_seconds"] for one in stretches)
    predicted = [(turn.result.get("plan") or {}).get("predicted_seconds") for turn in turns]
    known = [one for one in predicted if one is not None]
    return {
        "began_seconds": began,
        "actual_seconds": round(ended - began, 2),
        "predicted_seconds": round(sum(known), 2) if len(known) == len(turns) else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return round(seconds, 2) if seconds is not None else None


def _since(began: float, moment: float | None) -> float | None:
    return round(moment - began, 2) if moment is not None else None


def iso(moment: float) -> str:
    """``moment``: seconds since the epoch."""
    at = datetime.datetime.fromtimestamp(moment, tz=datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
