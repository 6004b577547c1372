# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Before each batch: which of its hosts are taken. By the failure budget and by the window."""

from __future__ import annotations

import typing as t

from ._fleet_order import WINDOW
from ._fleet_plan import READY
from ._fleet_run import FAILED, LOST, HostRun
from ._fleet_schedule import begins_of


def gate(
    hosts: t.Sequence[t.Mapping[str, t.Any]],
    knobs: t.Mapping[str, t.Any],
    batch: t.Sequence[str],
    runs: t.Sequence[HostRun],
    now: float,
    *,
    verb: str,
) -> dict[str, str]:
    """Why hosts of ``batch`` are not taken, by host; a host that is not in it is taken.

    ``hosts`` of the plan and ``knobs``: as their ``as_dict`` gives them; ``runs``: of the batches
    before; ``now``: the controller's clock, in seconds since the epoch.
    """
    by_name = {host["host"]: host for host in hosts}
    over = _over_budget(len(hosts), knobs, runs)
    found = {}
    able = []
    for name in batch:
        reason = by_name[name]["error"] or over
        if reason is None:
            able.append(by_name[name])
        else:
            found[name] = reason
    return {**found, **late(able, knobs, now, verb, _longest(runs))}


def window_left_seconds(knobs: t.Mapping[str, t.Any], now: float) -> float | None:
    """What is left of the window without its reserve; None without a window."""
    if knobs["window_end"] is None:
        return None
    return float(knobs["window_end"] - knobs["reserve_seconds"] - now)


def too_early(knobs: t.Mapping[str, t.Any], now: float) -> str | None:
    """Why nothing may be begun yet; None when it may."""
    if knobs["window_start"] is None or now >= knobs["window_start"]:
        return None
    return f"The window opens in {span(knobs['window_start'] - now)}, by the controller's clock."


def too_late(knobs: t.Mapping[str, t.Any], now: float) -> str | None:
    """Why nothing may be begun any more; None when it may."""
    left = window_left_seconds(knobs, now)
    if left is not None and left <= 0:
        kept = f", of which {knobs['reserve_seconds']} s are kept in reserve"
        return (
            f"The window ended {span(-left)} ago by the clock of the controller"
            f"{kept if knobs['reserve_seconds'] else ''}. What is suspended comes back with "
            "resume_fleet."
        )
    return None


def late(
    hosts: t.Sequence[t.Mapping[str, t.Any]],
    knobs: t.Mapping[str, t.Any],
    now: float,
    verb: str,
    longest_seconds: float = 0.0,
) -> dict[str, str]:
    """Why hosts of one batch do not fit into what is left of the window, by host; those that are
    not in it do, as far as can be told. In a maintenance window a host has to come back as well,
    and what no plan knows is how long the operator's tasks take: as long as they took in the
    slowest batch so far."""
    left = window_left_seconds(knobs, now)
    if left is None:
        return {}
    needs = [needed_seconds(host, verb, longest_seconds) for host in hosts]
    begins, _end = begins_of(needs, knobs["throttle"])
    return {
        host["host"]: f"not begun: it needs {begin + needed:.0f} s"
        + (f", {begin:.0f} s of them until its turn comes" if begin else "")
        + f", and {max(0.0, left):.0f} s of the window are left beside its reserve; its guests run "
        "on"
        for host, begin, needed in zip(hosts, begins, needs)
        if (verb == WINDOW or host["state"] == READY) and left <= begin + needed
    }


def needed_seconds(host: t.Mapping[str, t.Any], verb: str, longest_seconds: float = 0.0) -> float:
    """How long a host is expected to take: down, and in a maintenance window up again."""
    predicted = float(host["predicted_seconds"] or 0.0)
    return max(2 * predicted, longest_seconds) if verb == WINDOW else predicted


def _over_budget(count: int, knobs: t.Mapping[str, t.Any], runs: t.Sequence[HostRun]) -> str | None:
    begun = [run for run in runs if run.left_out is None]
    failed = sorted(run.host for run in begun if run.state in (FAILED, LOST))
    if not failed or 100.0 * len(failed) / count <= knobs["max_fail_percentage"]:
        return None
    return (
        f"not begun: {len(failed)} of {count} hosts failed before ({', '.join(failed)}), more than "
        f"fleet_max_fail_percentage={knobs['max_fail_percentage']:g} allows; its guests run on"
    )


def _longest(runs: t.Sequence[HostRun]) -> float:
    return max((run.seconds for run in runs if run.seconds is not None), default=0.0)


def span(seconds: float) -> str:
    """For people."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
