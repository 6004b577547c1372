# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Where the time bars of a report's page lie, on one axis for all hosts and guests."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

# The width of every bar's drawing, in its own units; the browser stretches it.
WIDTH = 1000
# What shorter pieces are drawn as, so that they are still seen.
_LEAST = 4.0
_MOST_TICKS = 6
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

SUSPEND, OUTAGE, MAINTAINED, RESUME, FAILED, PREDICTED = (
    "suspend",
    "outage",
    "maintained",
    "resume",
    "failed",
    "predicted",
)


@dataclass(frozen=True)
class Axis:
    """From 0 to ``seconds``, with a tick each ``step_seconds``."""

    seconds: float
    step_seconds: float

    @property
    def ticks(self) -> list[float]:
        """In seconds, without the end."""
        count = round(self.seconds / self.step_seconds)
        return [number * self.step_seconds for number in range(count)]

    def place(self, seconds: float) -> float:
        """In units of the drawing."""
        return round(min(max(seconds / self.seconds, 0.0), 1.0) * WIDTH, 1)


@dataclass(frozen=True)
class Piece:
    """Part of a bar, in units of the drawing. ``kind``: one of the words above; ``open``: it went
    on when the report was made."""

    kind: str
    left: float
    width: float
    open: bool = False


@dataclass(frozen=True)
class Bar:
    """``marks``: where its pieces were predicted to end, in units of the drawing."""

    pieces: tuple[Piece, ...]
    marks: tuple[float, ...]


def axis_of(report: t.Mapping[str, t.Any]) -> Axis:
    """Long enough for everything that is shown."""
    longest = max((end for host in report["hosts"] for end in _ends(host)), default=0.0)
    step = _step(longest)
    return Axis(seconds=step * max(1, math.ceil(longest / step)), step_seconds=step)


def _step(seconds: float) -> float:
    fits = (step for step in _STEPS if seconds <= _MOST_TICKS * step)
    return next(fits, _STEPS[-1] * math.ceil(seconds / _STEPS[-1] / _MOST_TICKS))


def _ends(host: t.Mapping[str, t.Any]) -> t.Iterator[float]:
    begins = host["predicted_began_seconds"]
    for one in (host, *host["guests"]):
        if begins is not None and one["predicted_seconds"] is not None:
            yield begins + one["predicted_seconds"]
        for way in ("suspend", "maintained", "resume"):
            stretch = one.get(way)
            if stretch is not None:
                yield stretch["began_seconds"] + stretch["actual_seconds"]
                yield stretch["began_seconds"] + (stretch.get("predicted_seconds") or 0.0)


def host_bar(host: t.Mapping[str, t.Any], axis: Axis) -> Bar:
    return _bar(host, host["predicted_began_seconds"], axis)


def guest_bar(guest: t.Mapping[str, t.Any], host: t.Mapping[str, t.Any], axis: Axis) -> Bar:
    """A plan does not know when a guest's turn comes: its bar begins with its host's."""
    return _bar(guest, host["predicted_began_seconds"], axis)


def _bar(one: t.Mapping[str, t.Any], begins: float | None, axis: Axis) -> Bar:
    pieces, marks = [], []
    if begins is not None and one["predicted_seconds"]:
        pieces.append(_piece(PREDICTED, begins, one["predicted_seconds"], axis))
    outage = one.get("outage")
    if outage is not None:
        began, seconds = outage["began_seconds"], outage["actual_seconds"]
        rest = axis.seconds - began if seconds is None else seconds
        pieces.append(_piece(OUTAGE, began, rest, axis, is_open=seconds is None))
    for kind, way in ((SUSPEND, "suspend"), (MAINTAINED, "maintained"), (RESUME, "resume")):
        stretch = one.get(way)
        if stretch is None:
            continue
        shown = FAILED if stretch.get("failed") else kind
        pieces.append(_piece(shown, stretch["began_seconds"], stretch["actual_seconds"], axis))
        if stretch.get("predicted_seconds") is not None:
            marks.append(axis.place(stretch["began_seconds"] + stretch["predicted_seconds"]))
    return Bar(tuple(pieces), tuple(marks))


def _piece(kind: str, began: float, seconds: float, axis: Axis, *, is_open: bool = False) -> Piece:
    left = min(axis.place(began), WIDTH - _LEAST)
    width = max(axis.place(began + seconds) - left, _LEAST)
    return Piece(kind, left, round(width, 1), is_open)
