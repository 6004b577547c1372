# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a fleet, from what each host told."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.vmfleet.suspend.plugins.filter.fleet_plan import fleet_plan
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_knobs import read_knobs

NOW = 1000.0


def guest(name, action="save", **more):
    return {"name": name, "uuid": None, "action": action, "reason": "it is running", **more}


def look(host, *guests, seconds=10.0, **more):
    plan = {"guests": list(guests), "predicted_seconds": seconds}
    return {"host": host, "result": {"plan": plan}, "resumes_at_boot": True, **more}


AWAY = {"host": "kvm9", "unreachable": True, "error": "no route", "result": {}}
REFUSED = look("kvm8", failed=True, error="web8: it has an nvme device")


def plan(*looks, verb="suspend", **given):
    return fleet_plan(looks, read_knobs(given, "/").as_dict(), verb, NOW)


def test_hosts_that_cannot_be_begun_are_named_first():
    lines = plan(look("kvm1", guest("web1")), REFUSED, AWAY)["lines"]
    assert lines == [
        "In all: 1 of 3 hosts, 1 guests, about 10 s",
        "kvm9: UNREACHABLE: no route",
        "kvm8: REFUSED: web8: it has an nvme device",
        "kvm1: 1 guests, 10.0 s",
        "  web1: save (it is running)",
    ]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (look("kvm1", guest("web")), "ready"),
        (look("kvm1", guest("web", "leave")), "nothing"),
        (look("kvm1"), "nothing"),
        (REFUSED, "refused"),
        (AWAY, "unreachable"),
        ({**AWAY, "unreachable": False, "failed": True}, "refused"),
    ],
)
def test_states_of_a_host(told, state):
    assert plan(told)["hosts"][0]["state"] == state


def test_a_failure_without_a_word_is_a_failure():
    [host] = plan(look("kvm1", failed=True, error=""))["hosts"]
    assert host["error"] == "no reason was given"


def test_guests_of_the_journal_that_no_plan_has_are_there_too():
    told = look("kvm1", guest("web"))
    told["result"]["guests"] = [guest("web"), guest("gone", "finish")]
    assert [one["name"] for one in plan(told)["hosts"][0]["guests"]] == ["web", "gone"]


@pytest.mark.parametrize(
    ("asked", "told", "answered", "words"),
    [
        (100, 108.2, 101, "7 s ahead of the controller's"),
        ("100", "93", "101", "7 s behind the controller's"),
        (100, 108, 110, None),  # a connection that took its time
        (100, 105, 101, None),
        ("", "", "101", None),
    ],
)
def test_a_clock_that_is_off_is_told(asked, told, answered, words):
    clock = {"asked": asked, "told": told, "answered": answered}
    warnings = plan(look("kvm1", guest("web"), clock=clock))["warnings"]
    assert [words in warning for warning in warnings] == ([] if words is None else [True])


def test_a_host_that_does_not_resume_at_boot_is_told_before_a_suspend_only():
    told = look("kvm1", guest("web"), resumes_at_boot=False)
    assert "does not resume its guests when it boots" in plan(told)["warnings"][0]
    assert plan(told, verb="resume")["warnings"] == []
    assert plan({**told, "resumes_at_boot": ""})["warnings"] == []


def test_hosts_stand_in_order_and_a_window_has_one_more_in_each_batch():
    looks = [look("kvm1", guest("db", priority=5)), look("kvm2", guest("web"))]
    made = plan(*looks, fleet_serial=1)
    assert [host["host"] for host in made["in_order"]] == ["kvm2", "kvm1"]
    assert made["batch_sizes"] == [1, 1]
    assert [host["waves"] for host in made["in_order"]] == [[["web"], []], [[], ["db"]]]
    window = plan(*looks, verb="window", fleet_serial=1)
    assert [(host["host"], host["keeper"]) for host in window["in_order"]] == [
        ("kvm2", False),
        ("vmfleet-batch-1", True),
        ("kvm1", False),
        ("vmfleet-batch-2", True),
    ]
    assert window["batch_sizes"] == [2, 2]


def test_a_guest_with_the_name_of_a_pattern_is_that_guest_alone():
    [host] = plan(look("kvm1", guest("web[1]*")))["in_order"]
    assert host["waves"] == [["web[[]1][*]"]]


def test_a_resume_takes_the_waves_from_the_end():
    looks = [
        look("kvm1", guest("db", "restore", priority=5)),
        look("kvm2", guest("web", "restore")),
    ]
    made = plan(*looks, verb="resume")
    assert [host["waves"] for host in made["in_order"]] == [[["db"], []], [[], ["web"]]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"window_end": "1970-01-01T00:10:00Z"}, "The window ended 6 min ago"),
        (
            {"window_end": "1970-01-01T00:20:00Z", "reserve_seconds": 300},
            "of which 300 s are kept in reserve",
        ),
    ],
)
def test_outside_of_the_window_nothing_may_begin_but_a_resume(given, words):
    assert words in plan(look("kvm1", guest("web")), **given)["problems"][0]
    assert plan(look("kvm1", guest("web")), verb="resume", **given)["problems"] == []


def test_a_window_that_is_not_open_yet_is_a_reason_to_wait_and_no_problem_of_the_plan():
    made = plan(look("kvm1", guest("web")), window_start="1970-01-01T02:00:00Z")
    assert made["problems"] == []
    [early] = made["too_early"]
    assert "The window opens in 1 h 43 min" in early and f"NOT YET: {early}" in made["lines"]


def test_those_that_are_shut_down_do_not_come_back_and_are_told():
    [warning] = plan(look("kvm1", guest("batch", "shutdown")))["warnings"]
    assert "batch: will be shut down" in warning and "Nobody starts them again" in warning


def test_a_client_whose_host_is_left_out_is_told_when_its_database_goes():
    left = look("kvm8", guest("web", "fail", depends_on=["db"]), failed=True, error="no room")
    [warning] = plan(look("kvm1", guest("db")), left)["warnings"]
    assert "web on kvm8" in warning and "db on kvm1" in warning


def test_a_circle_is_refused_going_down_and_no_reason_to_stay_down():
    looks = [
        look("kvm1", guest("a", "restore", depends_on=["b"])),
        look("kvm2", guest("b", "restore", depends_on=["a"])),
    ]
    made = plan(*looks, verb="resume")
    assert made["wave_count"] == 1 and "no order across hosts" in made["warnings"][0]
    for one in looks:
        one["result"]["plan"]["guests"][0]["action"] = "save"
    with pytest.raises(AnsibleFilterError, match="circle"):
        plan(*looks)


def test_those_that_are_never_suspended_are_told():
    assert "Never suspended: ctl*" in plan(look("kvm1"), protected_guests="ctl*")["lines"]


def test_time_that_nobody_can_tell_is_told_to_be_unknown():
    made = plan(look("kvm1", guest("web"), seconds=None), look("kvm2", guest("db")))
    assert made["forecast"] == {"seconds": None, "left_out": [], "unknown": ["kvm1"]}
    assert "time unknown (nothing was measured yet on kvm1)" in made["lines"][0]


@pytest.mark.parametrize(
    ("verb", "given", "seconds"),
    [
        ("suspend", {}, 30.0),
        ("suspend", {"fleet_throttle": 1}, 60.0),
        ("suspend", {"fleet_throttle": 2}, 40.0),
        ("suspend", {"fleet_serial": 1}, 60.0),
        ("window", {"fleet_serial": 1}, 120.0),
    ],
)
def test_predicted_seconds_of_batches_and_of_hosts_at_once(verb, given, seconds):
    looks = [look(f"kvm{n}", guest(f"web{n}"), seconds=10.0 * n) for n in (1, 2, 3)]
    assert plan(*looks, verb=verb, **given)["forecast"]["seconds"] == seconds


def test_hosts_that_wait_for_their_turn_may_be_too_late():
    looks = [look(f"kvm{n}", guest(f"web{n}"), seconds=100.0) for n in (1, 2, 3)]
    made = plan(*looks, fleet_throttle=1, window_end="1970-01-01T00:20:10Z")
    assert made["forecast"]["left_out"] == ["kvm3"]


def test_hosts_that_the_window_has_no_time_for_are_named():
    looks = [look(f"kvm{n}", guest(f"web{n}"), seconds=100.0) for n in (1, 2, 3)]
    made = plan(*looks, fleet_serial=1, window_end="1970-01-01T00:20:10Z")
    assert made["forecast"]["left_out"] == ["kvm3"]
    assert "no time for 1 hosts, whose guests would run on: kvm3" in made["warnings"][0]
