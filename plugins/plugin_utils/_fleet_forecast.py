# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How long a fleet's run will take, and which hosts the window will have no time for."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._fleet_gate import late, needed_seconds
from ._fleet_plan import READY
from ._fleet_schedule import begins_of


@dataclass(frozen=True)
class Forecast:
    """``seconds`` of the whole run without the operator's tasks, None where a host could not say;
    ``left_out``: hosts that the window has no time for, as it looks now; ``unknown``: hosts whose
    stores were never measured."""

    seconds: float | None
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        """As playbooks and report use it."""
        return {
            "seconds": self.seconds,
            "left_out": list(self.left_out),
            "unknown": list(self.unknown),
        }


def foresee(
    plan: t.Mapping[str, t.Any], knobs: t.Mapping[str, t.Any], now: float, verb: str
) -> Forecast:
    """Batch after batch from ``now`` on, or from the window's start where that is later; what the
    gate will ask before each is asked here beforehand. ``plan``: as its ``as_dict`` gives it."""
    hosts = {host["host"]: host for host in plan["hosts"]}
    clock = begun = max(now, knobs["window_start"] or now)
    throttle = knobs["throttle"]
    left_out: list[str] = []
    unknown: list[str] = []
    for batch in plan["batches"]:
        able = [hosts[name] for name in batch if hosts[name]["error"] is None]
        tardy = late(able, knobs, clock, verb)
        taken = [host for host in able if host["state"] == READY and host["host"] not in tardy]
        left_out += tardy
        unknown += [host["host"] for host in taken if host["predicted_seconds"] is None]
        _begins, seconds = begins_of([needed_seconds(host, verb) for host in taken], throttle)
        clock += seconds
    return Forecast(
        seconds=None if unknown else round(clock - begun, 1),
        left_out=tuple(left_out),
        unknown=tuple(unknown),
    )
