# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How fast a store was, and what is chosen for it: values and arithmetic alone."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

# Buffered I/O evicts what the host's other work has in its page cache, so that it must be worth it.
_CLEARLY_FASTER = 1.25
# Further channels take processors from the guests that run.
_WORTH_CHANNELS = 1.1
_MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measurement. ``direct``: past the page cache; writes include their fsync."""

    direct: bool
    channels: int
    bytes_per_second: float


@dataclass(frozen=True)
class Figures:
    """All of one store. ``measured_at``: seconds since the epoch. Without direct ones the
    filesystem refuses O_DIRECT."""

    measured_at: float
    write: tuple[Figure, ...]
    read: tuple[Figure, ...]


@dataclass(frozen=True)
class Measured:
    """What a measurement says for one direction, with the words that say why. ``one_stream``: what
    it says where there is no choice of channels."""

    bypass_cache: bool
    channels: int
    why_bypass_cache: str
    why_channels: str
    bytes_per_second: float
    one_stream: Measured | None = None


def choose(figures: t.Sequence[Figure]) -> Measured | None:
    """O_DIRECT unless buffered is clearly faster, and no more channels than are worth it; None
    without figures."""
    chosen = _choose(figures)
    if chosen is None:
        return None
    return replace(chosen, one_stream=_choose([one for one in figures if one.channels == 1]))


def _choose(figures: t.Sequence[Figure]) -> Measured | None:
    best = {direct: _worthy(figures, direct) for direct in (True, False)}
    direct, buffered = best[True], best[False]
    chosen = direct or buffered
    if chosen is None:
        return None
    if direct is not None and buffered is not None:
        faster = buffered.bytes_per_second > direct.bytes_per_second * _CLEARLY_FASTER
        chosen = buffered if faster else direct
        compared = f"O_DIRECT {_speed(direct)}, buffered {_speed(buffered)}"
    else:
        compared = f"buffered {_speed(chosen)}; the filesystem refuses O_DIRECT"
    counts = ", ".join(
        f"{_speed(one)} with {one.channels}" for one in figures if one.direct == chosen.direct
    )
    return Measured(
        bypass_cache=chosen.direct,
        channels=chosen.channels,
        why_bypass_cache=f"measured on this store: {compared}",
        why_channels=f"measured on this store: {counts}",
        bytes_per_second=chosen.bytes_per_second,
    )


def _worthy(figures: t.Sequence[Figure], direct: bool) -> Figure | None:
    """The fewest channels than which no more are clearly faster."""
    ordered = sorted((one for one in figures if one.direct == direct), key=lambda one: one.channels)
    for place, one in enumerate(ordered):
        more = [other.bytes_per_second for other in ordered[place + 1 :]]
        if max(more, default=0.0) <= one.bytes_per_second * _WORTH_CHANNELS:
            return one
    return None


def _speed(figure: Figure) -> str:
    return f"{figure.bytes_per_second / _MIB:.0f} MiB/s"
