# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of one host."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_run import HostRun


def turn(**states):
    guests = [{"name": name, "state": state} for name, state in states.items()]
    return {"began": 1, "ended": 2, "result": {"guests": guests}}


DOWN = turn(web="verified", batch="shutdown", db="failed")
UP = turn(web="running")


@pytest.mark.parametrize(
    ("fact", "state", "words"),
    [
        ({"taken": 1, "ended": 2}, "done", None),
        ({"taken": "1.5", "ended": "2.5", "error": None}, "done", None),
        ({"left_out": "not begun: late", "ended": 2}, "left_out", "not begun: late"),
        ({"taken": 1, "error": "full disk.", "ended": 2}, "failed", "full disk"),
        ({"taken": 1, "ended": 2, "resume_error": "spent"}, "failed", "spent"),
        (
            {"taken": 1, "error": "x.", "resume_error": "y.", "ended": 2},
            "failed",
            "x. y",
        ),
        ({"taken": 1, "error": "x"}, "lost", "unreachable under the operator's tasks"),
        ({"taken": 1, "ended": 2, "suspended": [DOWN], "comes_back": True}, "failed", "that web"),
        ({"taken": 1, "ended": 2, "suspended": [DOWN]}, "done", None),
        (
            {"taken": 1, "ended": 2, "suspended": [DOWN], "resumed": [UP], "comes_back": True},
            "done",
            None,
        ),
    ],
)
def test_states_and_complaints(fact, state, words):
    run = HostRun.of({"host": "kvm1", **fact})
    assert run.state == state
    assert run.complaint is None if words is None else words in (run.complaint or "")


def test_how_long_it_took():
    assert HostRun.of({"host": "kvm1", "taken": "1.5", "ended": 4}).seconds == 2.5
    assert HostRun.of({"host": "kvm1", "taken": 1}).seconds is None
