# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What the page of a fleet's report says: a report's values as words for people."""

from __future__ import annotations

import typing as t

from ._fleet_order import RESUME, SUSPEND, WINDOW
from ._fleet_plan import SKEW_SECONDS
from ._fleet_report import PLAN, counted, iso
from ._progress_lines import amount, duration

DASH = "\N{EN DASH}"
# What pieces of the time bars mean, by their kind.
LEGEND = (
    ("predicted", "predicted (a host's guests are drawn from its beginning on)"),
    ("suspend", "suspend"),
    ("outage", "guest does not run"),
    ("maintained", "maintenance"),
    ("resume", "resume"),
    ("failed", "failed"),
    ("mark", "predicted end"),
)
_TITLES = {
    PLAN: "Plan of a suspend",
    SUSPEND: "Suspend",
    RESUME: "Resume",
    WINDOW: "Maintenance window",
}


def title_of(verb: str) -> str:
    return _TITLES.get(verb, verb)


def headline(report: t.Mapping[str, t.Any]) -> str:
    """The verdict, in one sentence."""
    failed, hosts = report["totals"]["hosts_failed"], report["totals"]["hosts"]
    if failed:
        return (
            f"{failed} of {counted(hosts, 'host')} {'needs' if failed == 1 else 'need'} attention"
        )
    if report["problems"]:
        return "It would not begin"
    if report["verb"] == PLAN:
        return f"Nothing stands in the way on {counted(hosts, 'host')}"
    return f"{counted(hosts, 'host')} without a complaint"


def total_rows(report: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """What, and how much of it."""
    totals, forecast = report["totals"], report["forecast"] or {}
    failed = {key: totals[f"{key}_failed"] for key in ("hosts", "guests")}
    rows = [
        (key, f"{totals[key]}" + (f", {failed[key]} failed" if failed[key] else ""))
        for key in ("hosts", "guests")
    ]
    for way in ("suspended", "resumed"):
        if totals[f"guests_{way}"]:
            rows.append((way, f"{totals[f'guests_{way}']} of {totals['guests']}"))
    if totals["bytes"]:
        rows.append(("images", amount(totals["bytes"])))
    for key, name in (("outage", "longest outage"), ("stopped", "longest stop")):
        if totals[f"longest_{key}_seconds"] is not None:
            rows.append((name, duration(totals[f"longest_{key}_seconds"])))
    if forecast:
        seconds = forecast["seconds"]
        name = "forecast without tasks" if report["verb"] == WINDOW else "forecast"
        rows.append((name, duration(seconds) if seconds is not None else "unknown"))
    if report["verb"] != PLAN:
        rows.append(("taken in all", duration(report["duration_seconds"])))
    return rows


def forecast_words(forecast: t.Mapping[str, t.Any] | None) -> list[str]:
    """What the forecast leaves open."""
    forecast = forecast or {}
    words = []
    if forecast.get("unknown"):
        words.append(
            "How long it takes is unknown, for nothing was measured yet on "
            f"{', '.join(forecast['unknown'])}."
        )
    if forecast.get("left_out"):
        words.append(f"Foreseen to be left out: {', '.join(forecast['left_out'])}.")
    return words


def knob_rows(knobs: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """The knobs by the names that they are given by."""
    patterns = [*knobs["include"], *(f"!{one}" for one in knobs["exclude"])]
    return [
        ("fleet_hosts", knobs["hosts"]),
        ("fleet_guests", ", ".join(patterns) or "all"),
        ("protected_guests", ", ".join(knobs["protected"]) or "none"),
        ("fleet_serial", ", ".join(str(size) for size in knobs["serial"])),
        ("fleet_throttle", str(knobs["throttle"]) if knobs["throttle"] else "no limit"),
        ("fleet_max_fail_percentage", f"{knobs['max_fail_percentage']:g} %"),
        ("window_start", _moment(knobs["window_start"])),
        ("window_end", _moment(knobs["window_end"])),
        ("reserve_seconds", f"{knobs['reserve_seconds']} s"),
        ("window_tasks", knobs["window_tasks"] or "none"),
        ("fleet_report", knobs["report"]),
    ]


def _moment(seconds: float | None) -> str:
    return iso(seconds) if seconds is not None else "none"


def tick_words(seconds: float, step_seconds: float) -> str:
    """A tick of the time axis, as short as can be."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s" if whole else "0"
    if step_seconds < 60:
        return f"{whole // 60}:{whole % 60:02}"
    hours, minutes = divmod(whole // 60, 60)
    return " ".join(
        part
        for part in (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")
        if part
    )


def host_words(host: t.Mapping[str, t.Any]) -> list[str]:
    words = [counted(len(host["guests"]), "guest")] if host["guests"] else []
    if host["skew_seconds"] is not None and abs(host["skew_seconds"]) >= SKEW_SECONDS:
        way = "ahead" if host["skew_seconds"] > 0 else "behind"
        words.append(f"clock {duration(abs(host['skew_seconds']))} {way}")
    return words


def guest_words(guest: t.Mapping[str, t.Any]) -> str:
    """How far it is, or what is to be done to it and why."""
    if guest["suspend"] is None and guest["resume"] is None:
        return f"{guest['action']}: {guest['reason']}"
    states = dict.fromkeys(one for one in (guest["state"], guest["guest_state"]) if one)
    return ", ".join(states)


def bar_words(one: t.Mapping[str, t.Any], begins: float | None) -> str:
    """A time bar for those who do not see it. ``begins``: where a plan has it, in seconds."""
    words = []
    if begins is not None and one["predicted_seconds"] is not None:
        words.append(f"predicted to take {duration(one['predicted_seconds'])}")
    for name, way in (("suspend", "suspend"), ("maintenance", "maintained"), ("resume", "resume")):
        stretch = one.get(way)
        if stretch is not None:
            words.append(
                f"{name} {'failed, ' if stretch.get('failed') else ''}from "
                f"{duration(stretch['began_seconds'])} on, took {compared(stretch)}"
            )
    outage = one.get("outage")
    if outage is not None:
        seconds = outage["actual_seconds"]
        words.append(f"not running for {duration(seconds)}" if seconds is not None else "suspended")
    return "; ".join(words) or "nothing was done"


def compared(stretch: t.Mapping[str, t.Any]) -> str:
    """Actual and predicted seconds of a suspend or a resume."""
    words = duration(stretch["actual_seconds"])
    predicted = stretch.get("predicted_seconds")
    return words if predicted is None else f"{words}, predicted {duration(predicted)}"


def excess(stretch: t.Mapping[str, t.Any]) -> str:
    """By how much it took longer or shorter than predicted; nothing where that is not known."""
    predicted = stretch.get("predicted_seconds")
    share = round(100 * (stretch["actual_seconds"] / predicted - 1)) if predicted else 0
    return f"{share:+} %" if share else ""


def span_words(began: str, ended: str) -> str:
    """From when to when, both as ``2026-11-28T02:00:00Z``; the date once where it is the same."""
    (day, start), (last_day, end) = began[:-1].split("T"), ended[:-1].split("T")
    return f"{day} {start} to {end if day == last_day else f'{last_day} {end}'} UTC"
