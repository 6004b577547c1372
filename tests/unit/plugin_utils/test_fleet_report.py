# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of a fleet's playbook is said to have done."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vmfleet.suspend.tests.support.fleet_reports import (
    BEGAN,
    a_plan,
    a_run,
    a_suspend_with_failures,
    a_window,
    look,
    planned_guest,
    report_of,
    told_guest,
    turn,
)

PLANNED = [look("kvm1", planned_guest("web"))]
SAVED = told_guest("web", 1.0, 4.0, bytes=2000, predicted_seconds=3.0, stopped_seconds=3.5)
BACK = told_guest("web", 0.5, 2.0, state="running", guest_state="running")


def guest_of(**fact):
    (guest,) = report_of("window", PLANNED, [a_run("kvm1", **fact)])["hosts"][0]["guests"]
    return guest


@pytest.mark.parametrize(
    ("seen", "run", "verb", "state", "words"),
    [
        ({}, a_run("kvm1"), "suspend", "done", None),
        ({}, None, "plan", "planned", None),
        ({"unreachable": True, "error": "no route"}, None, "plan", "unreachable", "no route"),
        ({"failed": True, "error": "too full"}, None, "plan", "refused", "too full"),
        (
            {"unreachable": True, "error": "no route"},
            {"host": "kvm1", "left_out": "no route", "ended": 1},
            "suspend",
            "unreachable",
            "no route",
        ),
        ({"failed": True, "error": "too full"}, a_run("kvm1"), "resume", "done", None),
        (
            {},
            {"host": "kvm1", "left_out": "too late", "ended": 1},
            "window",
            "left_out",
            "too late",
        ),
        ({}, {"host": "kvm1", "taken": 1}, "window", "lost", "became unreachable"),
        ({}, a_run("kvm1", error="Spent."), "suspend", "failed", "Spent"),
    ],
)
def test_states_of_hosts_and_what_is_said_of_them(seen, run, verb, state, words):
    report = report_of(verb, [{**PLANNED[0], **seen}], [run] if run else [])
    (host,) = report["hosts"]
    assert host["state"] == state
    assert (host["complaint"] is None) if words is None else (words in host["complaint"])
    assert host["failed"] is (words is not None)
    assert (host["what_to_do"] is not None) is host["failed"]
    assert (state.upper().replace("_", " ") in report["lines"][0]) is host["failed"]


def test_a_host_with_nothing_to_do_has_no_complaint():
    report = report_of("suspend", [look("kvm1")], [])
    assert (report["hosts"][0]["state"], report["hosts"][0]["failed"]) == ("nothing", False)


def test_those_that_failed_come_first_the_worst_before_the_others():
    states = [(one["state"], one["host"]) for one in a_suspend_with_failures()["hosts"]]
    assert states == [
        ("unreachable", "kvm03"),
        ("lost", "kvm06"),
        ("failed", "kvm02"),
        ("refused", "kvm04"),
        ("left_out", "kvm05"),
        ("done", "kvm01"),
    ]


def test_what_fails_in_a_window_is_not_answered_with_another_window():
    (host,) = report_of("window", PLANNED, [a_run("kvm1", error="x")])["hosts"]
    assert "resume_fleet" in host["what_to_do"]


def test_a_guests_times_are_seconds_since_the_beginning():
    guest = guest_of(suspended=[turn(10, 16, SAVED)])
    assert guest["suspend"] == {
        "began_seconds": 11.0,
        "actual_seconds": 4.0,
        "predicted_seconds": 3.0,
        "stopped_seconds": 3.5,
        "bytes": 2000,
        "bytes_per_second": 500,
        "skew_seconds_after": None,
        "failed": False,
    }


@pytest.mark.parametrize(
    ("saved", "resumed", "outage"),
    [
        (SAVED, [BACK], {"began_seconds": 11.5, "actual_seconds": 91.0}),
        ({**SAVED, "stopped_seconds": None}, [BACK], {"began_seconds": 11, "actual_seconds": 91.5}),
        (SAVED, [], {"began_seconds": 11.5, "actual_seconds": None}),
        (SAVED, [{**BACK, "error": "x"}], {"began_seconds": 11.5, "actual_seconds": None}),
        ({**SAVED, "error": "it runs on"}, [BACK], None),
        ({**SAVED, "began_seconds": None, "actual_seconds": None}, [BACK], None),
    ],
)
def test_an_outage_lasts_from_the_stop_to_the_end_of_the_resume(saved, resumed, outage):
    guest = guest_of(suspended=[turn(10, 16, saved)], resumed=[turn(100, 109, *resumed)])
    assert guest["outage"] == outage


@pytest.mark.parametrize(
    ("waves", "error", "began"),
    [
        # A later wave tells of the guest again, and did nothing to it.
        ([SAVED, told_guest("web", None, None)], None, 11),
        ([{**SAVED, "error": "x"}, told_guest("web", None, None)], "x", 11),
        # It had its turn again.
        ([{**SAVED, "error": "x"}, SAVED], None, 31),
        ([told_guest("web", None, None, error="x"), SAVED], None, 31),
        ([SAVED, told_guest("web", None, None, error="lost since")], "lost since", 11),
    ],
)
def test_of_several_waves_the_last_that_had_the_guests_turn_counts(waves, error, began):
    guest = guest_of(suspended=[turn(10 + 20 * i, 18, one) for i, one in enumerate(waves)])
    assert guest["error"] == error
    assert guest["suspend"]["began_seconds"] == began
    assert guest["suspend"]["failed"] is (error is not None)


def test_what_failed_on_the_way_down_is_not_forgotten_on_the_way_up():
    guest = guest_of(
        suspended=[turn(10, 16, {**SAVED, "error": "not saved."})], resumed=[turn(100, 109, BACK)]
    )
    assert guest["error"] == "not saved."


def test_guests_that_no_plan_had_are_told_of_as_well():
    fact = a_run("kvm1", resumed=[turn(10, 16, told_guest("other", 1, 2, action="restore"))])
    guests = report_of("window", PLANNED, [fact])["hosts"][0]["guests"]
    assert [(one["name"], one["action"]) for one in guests] == [
        ("web", "save"),
        ("other", "restore"),
    ]


def test_a_hosts_waves_are_one_stretch_of_its_guests_with_what_was_predicted_of_all():
    other = told_guest("db", 2.0, 3.0, bytes=1000)
    waves = [turn(10, 19, SAVED, predicted=3), turn(20, 31, other, predicted=8)]
    (host,) = report_of("suspend", PLANNED, [a_run("kvm1", suspended=waves)])["hosts"]
    assert host["suspend"] == {"began_seconds": 11, "actual_seconds": 14, "predicted_seconds": 11}
    assert (host["bytes"], host["bytes_per_second"]) == (3000, 214)
    waves[1]["result"]["plan"]["predicted_seconds"] = None
    (host,) = report_of("suspend", PLANNED, [a_run("kvm1", suspended=waves)])["hosts"]
    assert host["suspend"]["predicted_seconds"] is None


def test_a_host_none_of_whose_guests_had_a_turn_has_no_stretch():
    waves = [turn(10, 19, predicted=3)]
    (host,) = report_of("suspend", PLANNED, [a_run("kvm1", suspended=waves)])["hosts"]
    assert (host["suspend"], host["resume"], host["bytes_per_second"]) == (None, None, None)


def test_numbers_that_are_text_as_ansible_core_2_18_keeps_them():
    fact = {
        "host": "kvm1",
        "taken": str(BEGAN + 8),
        "ended": str(BEGAN + 20),
        "maintained": {"began": str(BEGAN + 9), "ended": str(BEGAN + 12)},
    }
    (host,) = report_of("window", PLANNED, [fact])["hosts"]
    assert (host["taken_seconds"], host["ended_seconds"]) == (8, 20)
    assert host["maintained"] == {"began_seconds": 9, "actual_seconds": 3}


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({"fleet_serial": "2"}, {"kvm01": 0, "kvm02": 0, "kvm03": 75}),
        ({"fleet_serial": "1"}, {"kvm01": 0, "kvm02": 75, "kvm03": 131}),
        ({"fleet_throttle": "1"}, {"kvm01": 0, "kvm02": 75, "kvm03": 131}),
        ({"fleet_throttle": "2"}, {"kvm01": 0, "kvm02": 0, "kvm03": 56}),
        ({}, {"kvm01": 0, "kvm02": 0, "kvm03": 0}),
    ],
)
def test_a_plan_says_when_each_hosts_turn_would_come(given, begins):
    looks = [
        look("kvm01", planned_guest("a", 75.0)),
        look("kvm02", planned_guest("b", 56.0)),
        look("kvm03", planned_guest("c", None)),
        {"host": "kvm04", "unreachable": True, "error": "x"},
    ]
    hosts = report_of("plan", looks, [], **given)["hosts"]
    told = {host["host"]: host["predicted_began_seconds"] for host in hosts}
    assert told == {**begins, "kvm04": None}


def test_totals():
    totals = a_suspend_with_failures()["totals"]
    assert totals == {
        "hosts": 6,
        "hosts_failed": 5,
        "guests": 6,
        "guests_failed": 1,
        "guests_suspended": 3,
        "guests_resumed": 0,
        "bytes": (412 + 7100 + 6900) << 20,
        "longest_stopped_seconds": 31.2,
        "longest_outage_seconds": None,
    }
    assert a_window()["totals"]["guests_resumed"] == 9
    assert a_window()["totals"]["longest_outage_seconds"] > 300


@pytest.mark.parametrize("make", [a_plan, a_suspend_with_failures, a_window])
def test_a_report_is_plain(make):
    assert json.loads(json.dumps(make())) == make()


def test_the_last_line_says_how_it_went():
    assert a_plan()["lines"][-1] == "3 of 4 hosts without a complaint, no guest touched, in 9 s"
    assert a_window()["lines"] == [
        "3 of 3 hosts without a complaint, 9 guests suspended and 9 guests resumed, in 21 min"
    ]
    one = report_of("suspend", PLANNED, [a_run("kvm1", suspended=[turn(10, 16, SAVED)])])
    assert one["lines"] == ["1 of 1 hosts without a complaint, 1 guest suspended, in 4 min"]
