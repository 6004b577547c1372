# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What became of each guest of a host, from what the module runs of all waves told of it."""

from __future__ import annotations

import typing as t

from ._fleet_run import HostRun, Turn

# Seconds after the playbook began at which a module run began, and what that told of one guest.
_Telling = t.Tuple[float, t.Mapping[str, t.Any]]


def guests_of(planned: t.Mapping[str, t.Any], run: HostRun, began: float) -> list[dict[str, t.Any]]:
    """Those with an error first, else as the plan has them. ``planned``: the plan's host."""
    plans = {guest["name"]: guest for guest in planned["guests"]}
    down, up = _told_by_name(run.suspended, began), _told_by_name(run.resumed, began)
    names = dict.fromkeys([*plans, *down, *up])
    guests = [_guest(name, plans.get(name), down.get(name, []), up.get(name, [])) for name in names]
    return sorted(guests, key=lambda guest: guest["error"] is None)


def rate(size_bytes: int | None, seconds: float | None) -> int | None:
    """Bytes a second."""
    return round(size_bytes / seconds) if size_bytes and seconds else None


def _told_by_name(turns: t.Iterable[Turn], began: float) -> dict[str, list[_Telling]]:
    found: dict[str, list[_Telling]] = {}
    for turn in turns:
        for guest in turn.result.get("guests") or ():
            found.setdefault(guest["name"], []).append((turn.began - began, guest))
    return found


def _guest(
    name: str,
    planned: t.Mapping[str, t.Any] | None,
    down: t.Sequence[_Telling],
    up: t.Sequence[_Telling],
) -> dict[str, t.Any]:
    told = [guest for _offset, guest in (*down, *up)]
    about = planned if planned is not None else told[0]
    last = told[-1] if told else {}
    suspend, resume = _way(down), _way(up)
    return {
        "name": name,
        "uuid": about.get("uuid"),
        "action": about["action"],
        "reason": about["reason"],
        "predicted_seconds": about.get("predicted_seconds"),
        "at_most_bytes": about.get("at_most_bytes"),
        "state": last.get("state"),
        "guest_state": last.get("guest_state"),
        "error": " ".join(filter(None, (_error(down), _error(up)))) or None,
        "suspend": suspend,
        "outage": _outage(suspend, resume),
        "resume": resume,
    }


def _turn_of(told: t.Sequence[_Telling]) -> int | None:
    """Which run had the guest's turn last: those of later waves tell of it too, and did nothing."""
    for index in reversed(range(len(told))):
        guest = told[index][1]
        if guest.get("began_seconds") is not None and guest.get("actual_seconds") is not None:
            return index
    return None


def _error(told: t.Sequence[_Telling]) -> str | None:
    """The last one since the guest's turn: what was wrong before it may be right since."""
    errors = [
        guest["error"] for _offset, guest in told[_turn_of(told) or 0 :] if guest.get("error")
    ]
    return str(errors[-1]) if errors else None


def _way(told: t.Sequence[_Telling]) -> dict[str, t.Any] | None:
    turn = _turn_of(told)
    if turn is None:
        return None
    offset_seconds, guest = told[turn]
    seconds, size = guest["actual_seconds"], guest.get("bytes")
    return {
        "began_seconds": round(offset_seconds + guest["began_seconds"], 2),
        "actual_seconds": seconds,
        "predicted_seconds": guest.get("predicted_seconds"),
        "stopped_seconds": guest.get("stopped_seconds"),
        "bytes": size,
        "bytes_per_second": rate(size, seconds),
        "skew_seconds_after": (guest.get("clock") or {}).get("skew_seconds_after"),
        "failed": _error(told) is not None,
    }


def _outage(
    suspend: t.Mapping[str, t.Any] | None, resume: t.Mapping[str, t.Any] | None
) -> dict[str, float | None] | None:
    """While the guest did not run: from when its vCPUs were stopped, or its suspend began where
    that is not known, to the end of its resume; ``actual_seconds`` is None while it is not back."""
    if suspend is None or suspend["failed"]:
        return None
    stopped = suspend["stopped_seconds"]
    began = suspend["began_seconds"]
    if stopped is not None:
        began += max(0.0, suspend["actual_seconds"] - stopped)
    back = resume is not None and not resume["failed"]
    ended = resume["began_seconds"] + resume["actual_seconds"] if resume and back else None
    return {
        "began_seconds": round(began, 2),
        "actual_seconds": round(ended - began, 2) if ended is not None else None,
    }
