# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How long saves take, and which of them fit into a window: arithmetic alone.

A store's rate is that of one guest while as many are written at once as a run does: bytes of past
saves over the seconds that each of them took.
"""

from __future__ import annotations

import heapq
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """One guest that is to be saved. ``seconds``: None where its store was never measured;
    ``unit``: its group, or itself: what is saved together or not at all; ``rank``: the higher, the
    later it is given up."""

    key: str
    tier: int
    store: int
    seconds: float | None
    unit: str
    rank: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """How many guests at once, on this host and in each store."""

    total: int
    per_store: int


def rate(samples: t.Iterable[tuple[int, float]]) -> float | None:
    """Bytes per second and guest from (bytes, seconds) of past saves; None without any."""
    known = [(size, seconds) for size, seconds in samples if size > 0 and seconds > 0]
    seconds = sum(taken for _size, taken in known)
    return sum(size for size, _taken in known) / seconds if seconds else None


def ends(loads: t.Sequence[Load], limits: Limits) -> dict[str, float] | None:
    """When each save ends, in seconds from the start, as the run would schedule them: tier by tier,
    in the order given, each as soon as host and store have room. None where one is unmeasured."""
    if any(load.seconds is None for load in loads):
        return None
    finished: dict[str, float] = {}
    start = 0.0
    for tier in sorted({load.tier for load in loads}):
        free_at = [start] * limits.total
        stores = {load.store: [start] * limits.per_store for load in loads}
        for load in (load for load in loads if load.tier == tier):
            begin = max(heapq.heappop(free_at), heapq.heappop(stores[load.store]))
            end = begin + (load.seconds or 0.0)
            heapq.heappush(free_at, end)
            heapq.heappush(stores[load.store], end)
            finished[load.key] = end
        start = max((finished[load.key] for load in loads if load.tier == tier), default=start)
    return finished


def total_seconds(loads: t.Sequence[Load], limits: Limits) -> float | None:
    """When the last save ends."""
    finished = ends(loads, limits)
    return max(finished.values(), default=0.0) if finished is not None else None


def fitting(
    loads: t.Sequence[Load],
    limits: Limits,
    window_seconds: float,
    anyhow: t.Collection[str] = (),
) -> frozenset[str] | None:
    """Keys of the guests that can be saved in time; None where that cannot be known.

    The most important are taken first and, among equals, the smallest, so that most get through; a
    group fits as a whole. ``anyhow``: keys of those that take their time whether they fit or not.
    """
    if any(load.seconds is None for load in loads):
        return None
    units: dict[str, list[Load]] = {}
    for load in loads:
        units.setdefault(load.unit, []).append(load)

    def importance(unit: str) -> tuple[int, int, str]:
        inside = units[unit]
        return -max(load.rank for load in inside), sum(load.size_bytes for load in inside), unit

    chosen: frozenset[str] = frozenset()
    for unit in sorted(units, key=importance):
        tried = chosen | {load.key for load in units[unit]}
        saved = tried.union(anyhow)
        taken = total_seconds([load for load in loads if load.key in saved], limits)
        if taken is not None and taken <= window_seconds:
            chosen = tried
    return chosen
