# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The columns of figures beside the time bars of a report's page."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._fleet_page_words import DASH, excess
from ._fleet_report import PLAN
from ._progress_lines import amount, duration

# A guest's clock that is off by less is right.
_RIGHT_SECONDS = 0.1


@dataclass(frozen=True)
class Cell:
    """``name``: of its column; ``figure``: what counts; ``excess``: by how much it is more than was
    predicted; ``notes``: what else there is to say of it."""

    name: str
    figure: str = DASH
    excess: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.figure == DASH and not self.notes


def columns_of(report: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """Key and name of those that say something of any guest."""
    if report["verb"] == PLAN:
        return [("predicted", "Predicted"), ("room", "Image")]
    guests = [guest for host in report["hosts"] for guest in host["guests"]]
    names = (("suspend", "Suspend"), ("image", "Image"), ("outage", "Outage"), ("resume", "Resume"))
    return [
        (key, name)
        for key, name in names
        if any(guest["suspend" if key == "image" else key] for guest in guests)
    ]


def cells_of(one: t.Mapping[str, t.Any], columns: t.Sequence[tuple[str, str]]) -> list[Cell]:
    """``one``: a host or a guest of a report."""
    return [_CELLS[key](one, key, name) for key, name in columns]


def _predicted(one: t.Mapping[str, t.Any], key: str, name: str) -> Cell:
    seconds = one["predicted_seconds"]
    return Cell(name, duration(seconds)) if seconds is not None else Cell(name)


def _room(one: t.Mapping[str, t.Any], key: str, name: str) -> Cell:
    size = sum(guest["at_most_bytes"] or 0 for guest in one.get("guests", [one]))
    return Cell(name, amount(size), notes=("at most",)) if size else Cell(name)


def _way(one: t.Mapping[str, t.Any], key: str, name: str) -> Cell:
    way = one[key]
    if way is None:
        return Cell(name)
    notes = []
    if way.get("predicted_seconds") is not None:
        notes.append(f"predicted {duration(way['predicted_seconds'])}")
    if way.get("stopped_seconds") is not None:
        notes.append(f"stopped {duration(way['stopped_seconds'])}")
    skew_seconds = abs(way.get("skew_seconds_after") or 0.0)
    if skew_seconds >= _RIGHT_SECONDS:
        notes.append(f"clock off by {duration(skew_seconds)}")
    return Cell(name, duration(way["actual_seconds"]), excess(way), tuple(notes))


def _image(one: t.Mapping[str, t.Any], key: str, name: str) -> Cell:
    """A host's bytes are those of its guests; a guest's are told with its suspend."""
    told = one if "bytes" in one else one["suspend"] or {}
    if not told.get("bytes"):
        return Cell(name)
    rate = told["bytes_per_second"]
    return Cell(name, amount(told["bytes"]), notes=(f"{amount(rate)}/s",) if rate else ())


def _outage(one: t.Mapping[str, t.Any], key: str, name: str) -> Cell:
    """A host has none; what its guests wait for there is the operator's maintenance."""
    if one.get("maintained") is not None:
        seconds = one["maintained"]["actual_seconds"]
        return Cell(name, duration(seconds), notes=("maintenance",))
    outage = one.get("outage")
    if outage is None:
        return Cell(name)
    seconds = outage["actual_seconds"]
    if seconds is None:
        return Cell(name, "suspended")
    return Cell(name, duration(seconds))


_CELLS: dict[str, t.Callable[[t.Mapping[str, t.Any], str, str], Cell]] = {
    "predicted": _predicted,
    "room": _room,
    "suspend": _way,
    "image": _image,
    "outage": _outage,
    "resume": _way,
}
