# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A fleet's report as one HTML page that needs nothing but itself, not even a script."""

from __future__ import annotations

import typing as t
from pathlib import Path

import jinja2

from ._fleet_bars import Axis, Bar, axis_of, guest_bar, host_bar
from ._fleet_cells import cells_of, columns_of
from ._fleet_page_words import (
    LEGEND,
    bar_words,
    forecast_words,
    guest_words,
    headline,
    host_words,
    knob_rows,
    span_words,
    tick_words,
    title_of,
    total_rows,
)

# Hosts are shown with their guests up to so many guests in all; above that, those that failed.
_GUESTS_AT_A_GLANCE = 60

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(report: t.Mapping[str, t.Any]) -> str:
    """``report``: as `make_report` makes it. Whatever hosts told is text in it, never markup."""
    axis = axis_of(report)
    columns = columns_of(report)
    brief = report["totals"]["guests"] > _GUESTS_AT_A_GLANCE
    hosts = [_host(host, axis, columns, brief=brief) for host in report["hosts"]]
    return _TEMPLATES.get_template("fleet_page.html.j2").render(
        report=report,
        title=title_of(report["verb"]),
        headline=headline(report),
        when=span_words(report["began"], report["ended"]),
        totals=total_rows(report),
        forecast=forecast_words(report["forecast"]),
        knobs=knob_rows(report["knobs"]),
        ticks=[tick_words(tick, axis.step_seconds) for tick in axis.ticks],
        grid=[axis.place(tick) for tick in axis.ticks],
        legend=LEGEND,
        kinds=_kinds(hosts),
        columns=columns,
        hosts=hosts,
    )


def _host(
    host: t.Mapping[str, t.Any],
    axis: Axis,
    columns: t.Sequence[tuple[str, str]],
    *,
    brief: bool,
) -> dict[str, t.Any]:
    begins = host["predicted_began_seconds"]
    return {
        "name": host["host"],
        "state": host["state"].replace("_", " "),
        "failed": host["failed"],
        "complaint": host["complaint"],
        "what_to_do": host["what_to_do"],
        "open": host["failed"] or not brief,
        "about": host_words(host),
        "bar": _drawn(host_bar(host, axis), bar_words(host, begins)),
        "cells": cells_of(host, columns),
        "guests": [
            {
                "name": guest["name"],
                "about": guest_words(guest),
                "error": guest["error"],
                "bar": _drawn(guest_bar(guest, host, axis), bar_words(guest, begins)),
                "cells": cells_of(guest, columns),
            }
            for guest in host["guests"]
        ],
    }


def _kinds(hosts: t.Sequence[t.Mapping[str, t.Any]]) -> set[str]:
    """What the legend has to tell."""
    drawn = [one["bar"] for host in hosts for one in (host, *host["guests"])]
    kinds = {piece.kind for one in drawn for piece in one["pieces"]}
    return kinds | ({"mark"} if any(one["marks"] for one in drawn) else set())


def _drawn(drawing: Bar, words: str) -> dict[str, t.Any]:
    return {"pieces": drawing.pieces, "marks": drawing.marks, "words": words}
