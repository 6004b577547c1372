# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of a fleet's report says and where its bars lie; how it looks is for a browser
(tests/integration/test_fleet_page.py)."""

from __future__ import annotations

import re

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_bars import (
    Axis,
    Piece,
    axis_of,
    guest_bar,
    host_bar,
)
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_cells import (
    cells_of,
    columns_of,
)
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_page import render_page
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_page_words import (
    bar_words,
    excess,
    guest_words,
    headline,
    host_words,
    knob_rows,
    span_words,
    tick_words,
    total_rows,
)
from ansible_collections.vmfleet.suspend.tests.support.fleet_reports import (
    a_large_suspend,
    a_plan,
    a_suspend_with_failures,
    a_window,
    knobs,
    report_of,
)

AXIS = Axis(seconds=100, step_seconds=20)


def stretch(began, seconds, **about):
    return {"began_seconds": began, "actual_seconds": seconds, **about}


def a_guest(**about):
    nothing = dict.fromkeys(["suspend", "outage", "resume", "predicted_seconds", "error"])
    return {"name": "web", **nothing, **about}


HOST = {"predicted_began_seconds": None}


@pytest.mark.parametrize(
    ("longest", "seconds", "step"),
    [
        (0, 1, 1),
        (0.4, 1, 1),
        (6, 6, 1),
        (6.1, 8, 2),
        (61, 75, 15),
        (1290, 1500, 300),
        (7200, 7200, 1800),
        (900000, 1036800, 172800),
    ],
)
def test_the_axis_holds_everything_and_has_few_ticks(longest, seconds, step):
    host = {**a_guest(suspend=stretch(0, longest)), **HOST, "guests": []}
    axis = axis_of({"hosts": [host]})
    assert (axis.seconds, axis.step_seconds) == (seconds, step)
    assert 1 <= len(axis.ticks) <= 6
    assert axis.ticks[0] == 0


def test_what_was_predicted_is_on_the_axis_too():
    host = {**a_guest(suspend=stretch(10, 5, predicted_seconds=80)), **HOST, "guests": []}
    assert axis_of({"hosts": [host]}).seconds == 90


def test_a_report_without_hosts_has_an_axis_too():
    assert axis_of({"hosts": []}).ticks == [0]


@pytest.mark.parametrize(
    ("guest", "pieces", "marks"),
    [
        (a_guest(), (), ()),
        (
            a_guest(suspend=stretch(10, 20, predicted_seconds=15)),
            (Piece("suspend", 100, 200),),
            (250,),
        ),
        (a_guest(suspend=stretch(10, 20, failed=True)), (Piece("failed", 100, 200),), ()),
        (a_guest(resume=stretch(100, 0)), (Piece("resume", 996, 4),), ()),
        (a_guest(suspend=stretch(50, 0.01)), (Piece("suspend", 500, 4),), ()),
        (
            a_guest(suspend=stretch(10, 20), outage=stretch(12, None)),
            (Piece("outage", 120, 880, open=True), Piece("suspend", 100, 200)),
            (),
        ),
        (
            a_guest(suspend=stretch(0, 9), outage=stretch(2, 48), resume=stretch(40, 10)),
            (Piece("outage", 20, 480), Piece("suspend", 0, 90), Piece("resume", 400, 100)),
            (),
        ),
    ],
)
def test_where_the_pieces_of_a_bar_lie(guest, pieces, marks):
    drawn = guest_bar(guest, HOST, AXIS)
    assert (drawn.pieces, drawn.marks) == (pieces, marks)


def test_a_planned_guests_bar_begins_with_its_hosts():
    host = {**a_guest(predicted_seconds=50), "predicted_began_seconds": 20}
    assert host_bar(host, AXIS).pieces == (Piece("predicted", 200, 500),)
    guest = a_guest(predicted_seconds=30)
    assert guest_bar(guest, host, AXIS).pieces == (Piece("predicted", 200, 300),)


@pytest.mark.parametrize(
    ("seconds", "step", "words"),
    [
        (0, 300, "0"),
        (30, 15, "30 s"),
        (75, 15, "1:15"),
        (60, 30, "1:00"),
        (120, 120, "2 min"),
        (3600, 1800, "1 h"),
        (5400, 1800, "1 h 30 min"),
    ],
)
def test_ticks_are_short(seconds, step, words):
    assert tick_words(seconds, step) == words


@pytest.mark.parametrize(
    ("actual", "predicted", "words"),
    [(11, 10, "+10 %"), (9, 10, "-10 %"), (10, 10, ""), (10, 0, ""), (10, None, "")],
)
def test_predicted_against_actual(actual, predicted, words):
    assert excess(stretch(0, actual, predicted_seconds=predicted)) == words


@pytest.mark.parametrize(
    ("guest", "words"),
    [
        (a_guest(), "nothing was done"),
        (
            a_guest(suspend=stretch(12, 3, predicted_seconds=2), outage=stretch(12, 95)),
            "suspend from 12 s on, took 3.0 s, predicted 2.0 s; not running for 1 min 35 s",
        ),
        (
            a_guest(suspend=stretch(12, 3), outage=stretch(12, None)),
            "suspend from 12 s on, took 3.0 s; suspended",
        ),
        (
            a_guest(resume=stretch(12, 3, failed=True)),
            "resume failed, from 12 s on, took 3.0 s",
        ),
    ],
)
def test_bars_are_told_to_those_who_do_not_see_them(guest, words):
    assert bar_words(guest, None) == words
    planned = bar_words(a_guest(predicted_seconds=61), 0)
    assert planned == "predicted to take 1 min 1 s"


def test_what_is_said_of_a_guest():
    planned = a_guest(action="save", reason="it is running", state=None, guest_state=None)
    assert guest_words(planned) == "save: it is running"
    done = {**planned, "suspend": stretch(1, 2), "state": "verified", "guest_state": "stopped"}
    assert guest_words(done) == "verified, stopped"
    assert guest_words({**done, "state": "running", "guest_state": "running"}) == "running"


@pytest.mark.parametrize(
    ("skew_seconds", "words"),
    [(None, []), (1.9, []), (12.4, ["clock 12 s ahead"]), (-61, ["clock 1 min 1 s behind"])],
)
def test_a_clock_that_is_off_is_said_of_its_host(skew_seconds, words):
    assert host_words({"guests": [], "skew_seconds": skew_seconds}) == words


def test_the_headline():
    assert headline(a_suspend_with_failures()) == "5 of 6 hosts need attention"
    assert headline(a_plan()) == "1 of 4 hosts needs attention"
    assert headline(a_window()) == "3 hosts without a complaint"
    assert headline(report_of("plan", [], [])) == "Nothing stands in the way on 0 hosts"


def test_totals_for_people():
    assert dict(total_rows(a_suspend_with_failures())) == {
        "hosts": "6, 5 failed",
        "guests": "6, 1 failed",
        "suspended": "3 of 6",
        "images": "14.1 GiB",
        "longest stop": "31 s",
        "forecast": "33 s",
        "taken in all": "1 min 0 s",
    }
    assert dict(total_rows(a_plan()))["forecast"] == "unknown"
    assert dict(total_rows(a_window()))["forecast without tasks"] == "9 min 24 s"


def test_the_date_is_told_once():
    assert span_words("2026-11-28T02:00:00Z", "2026-11-28T03:10:00Z") == (
        "2026-11-28 02:00:00 to 03:10:00 UTC"
    )
    assert span_words("2026-11-28T22:00:00Z", "2026-11-29T01:00:00Z") == (
        "2026-11-28 22:00:00 to 2026-11-29 01:00:00 UTC"
    )


def test_knobs_are_shown_by_the_names_that_they_are_given_by():
    rows = dict(knob_rows(knobs(fleet_guests="web*,!web09", window_end="2026-11-28T04:00:00Z")))
    assert rows["fleet_guests"] == "web*, !web09"
    assert rows["window_end"] == "2026-11-28T04:00:00Z"
    assert (rows["window_start"], rows["fleet_throttle"]) == ("none", "no limit")


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (a_plan, ["Predicted", "Image"]),
        (a_suspend_with_failures, ["Suspend", "Image", "Outage"]),
        (a_window, ["Suspend", "Image", "Outage", "Resume"]),
        (lambda: report_of("resume", [], []), []),
    ],
)
def test_only_columns_that_say_something_are_shown(make, names):
    assert [name for _key, name in columns_of(make())] == names


def test_figures_of_a_guest_and_its_host():
    report = a_window()
    host = report["hosts"][0]
    cells = cells_of(host["guests"][0], columns_of(report))
    assert [(cell.figure, cell.excess, cell.notes) for cell in cells] == [
        ("8.4 s", "-7 %", ("predicted 9.0 s", "stopped 7.9 s")),
        ("1.0 GiB", "", ("126.4 MiB/s",)),
        ("5 min 11 s", "", ()),
        ("6.7 s", "-7 %", ("predicted 7.2 s",)),
    ]
    maintained = cells_of(host, columns_of(report))[2]
    assert (maintained.figure, maintained.notes) == ("3 min 4 s", ("maintenance",))
    assert cells_of(a_guest(), [("outage", "Outage")])[0].is_empty


HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"""


def test_nothing_that_hosts_tell_becomes_markup():
    report = a_suspend_with_failures(HOSTILE)
    report["warnings"].append(HOSTILE)
    report["knobs"]["hosts"] = HOSTILE
    for host in report["hosts"]:
        host.update(host=HOSTILE, complaint=HOSTILE, state=HOSTILE)
        for guest in host["guests"]:
            guest.update(name=HOSTILE, error=HOSTILE, action=HOSTILE, reason=HOSTILE)
            guest.update(state=HOSTILE, guest_state=HOSTILE)
    page = render_page(report)
    assert "<script" not in page and "<img" not in page and " onerror=alert(1)>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;" in page
    assert "{{ 7 * 7 }}" in page
    # No attribute is ended by what stands in it.
    assert re.findall(r'aria-label="Guests of [^"]*"(?=>)', page)


def test_failures_stand_first():
    page = render_page(a_suspend_with_failures())
    places = [page.index(f">{host}</a>") for host in ("kvm03", "kvm06", "kvm02", "kvm04", "kvm05")]
    assert places == sorted(places)
    assert places[-1] < page.index("In all") < page.index("Hosts and guests")
    assert ">kvm01</a>" not in page
    assert "What to do:" in page


def test_of_a_large_fleet_only_hosts_that_failed_are_open():
    page = render_page(a_large_suspend(hosts=8))
    assert page.count("<details") == 8 and page.count(" open class=") == 0
    page = render_page(a_large_suspend(hosts=120, guests=1))
    assert page.count("<details") == 120 and page.count(" open class=") == 1
    assert render_page(a_large_suspend(hosts=2)).count(" open class=") == 2


def test_one_bar_for_each_host_and_guest():
    assert render_page(a_window()).count('<svg class="bar"') == 12


def test_what_keeps_all_from_beginning_is_the_headline_and_told():
    report = {**a_plan(), "problems": ["web on kvm1 needs db on kvm2"]}
    report["totals"] = {**report["totals"], "hosts_failed": 0}
    assert headline(report) == "It would not begin"
    assert "<li>web on kvm1 needs db on kvm2</li>" in render_page(report)
