# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a batch are taken."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_gate import gate, span
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_knobs import read_knobs
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_run import HostRun

HOSTS = [
    {
        "host": f"kvm{number}",
        "error": "no route" if number == 4 else None,
        "state": {4: "unreachable", 3: "nothing"}.get(number, "ready"),
        "predicted_seconds": 60.0 if number == 2 else None,
    }
    for number in (1, 2, 3, 4)
]
DONE = {"taken": 0.0, "ended": 50.0}
END = {"window_end": "1970-01-01T00:02:00Z"}


def run(host, **fact):
    return HostRun.of({"host": host, **fact})


@pytest.mark.parametrize(
    ("batch", "runs", "given", "now", "verb", "left_out"),
    [
        pytest.param(["kvm1", "kvm2", "kvm3"], [], {}, 0, "suspend", [], id="all are taken"),
        pytest.param(["kvm1", "kvm4"], [], {}, 0, "suspend", ["kvm4"], id="its look failed"),
        pytest.param(["kvm2"], [], END, 59, "suspend", [], id="it fits"),
        pytest.param(["kvm2"], [], END, 60, "suspend", ["kvm2"], id="it does not"),
        pytest.param(["kvm2"], [], END, 1, "window", ["kvm2"], id="it has to come back as well"),
        pytest.param(
            ["kvm2"], [], {**END, "reserve_seconds": 30}, 31, "suspend", ["kvm2"], id="the reserve"
        ),
        pytest.param(
            ["kvm2", "kvm1"],
            [],
            {**END, "fleet_throttle": 1},
            59,
            "window",
            ["kvm1", "kvm2"],
            id="its turn comes too late",
        ),
        pytest.param(["kvm1"], [], END, 119, "suspend", [], id="unknown, and there is time"),
        pytest.param(["kvm1"], [], END, 120, "suspend", ["kvm1"], id="unknown, and it is over"),
        pytest.param(["kvm3"], [], END, 500, "suspend", [], id="nothing to do takes no time"),
        pytest.param(
            ["kvm3"], [], END, 500, "window", ["kvm3"], id="maintenance takes time all the same"
        ),
        pytest.param(
            ["kvm3"],
            [run("kvm1", **DONE)],
            END,
            71,
            "window",
            ["kvm3"],
            id="as long as the slowest before",
        ),
        pytest.param(["kvm3"], [run("kvm1", **DONE)], END, 69, "window", [], id="and it fits"),
        pytest.param(
            ["kvm2"], [run("kvm1", error="x", **DONE)], {}, 0, "suspend", ["kvm2"], id="one failed"
        ),
        pytest.param(
            ["kvm2"],
            [run("kvm1", resume_error="x", **DONE)],
            {},
            0,
            "window",
            ["kvm2"],
            id="one failed to resume",
        ),
        pytest.param(
            ["kvm2"], [run("kvm1", taken=0.0)], {}, 0, "window", ["kvm2"], id="one was lost"
        ),
        pytest.param(
            ["kvm2"],
            [run("kvm1", error="x", **DONE)],
            {"fleet_max_fail_percentage": 25},
            0,
            "suspend",
            [],
            id="within the budget",
        ),
        pytest.param(
            ["kvm2"],
            [
                run("kvm1", left_out="no route", resume_error="x", ended=9.0),
                run("kvm3", left_out="x"),
            ],
            {},
            0,
            "suspend",
            [],
            id="those that were never begun have not failed",
        ),
    ],
)
def test_who_is_left_out(batch, runs, given, now, verb, left_out):
    knobs = read_knobs(given, "/").as_dict()
    assert sorted(gate(HOSTS, knobs, batch, runs, now, verb=verb)) == left_out


def test_the_reason_names_numbers_and_hosts():
    knobs = read_knobs({"fleet_max_fail_percentage": "10"}, "/").as_dict()
    reason = gate(HOSTS, knobs, ["kvm2"], [run("kvm1", error="x")], 0, verb="suspend")["kvm2"]
    assert "1 of 4 hosts failed before (kvm1)" in reason
    assert "fleet_max_fail_percentage=10" in reason


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (60, "1 min"), (3599, "59 min"), (7260, "2 h 1 min")]
)
def test_spans_for_people(seconds, words):
    assert span(seconds) == words
