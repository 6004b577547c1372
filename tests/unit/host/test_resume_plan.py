# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order and in whose company guests come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._bring_back import (
    Returning,
    as_before,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import Limits
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import Source
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import Entry
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume_plan import (
    NOTHING,
    REFUSED,
    RESTORE,
    Awaited,
    is_over,
    make_resume_plan,
    waits,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._wishes import Wish
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)


def an_entry(name="web01", **fields):
    source = Source(qmp_socket=f"/run/{name}")
    fields = {"state": "verified", "was_running": True, **fields}
    return Entry(name, name, None, source, f"/images/{name}.save", **fields)


def awaited(name="web01", action=RESTORE, **fields):
    return Awaited(Returning(an_entry(name, **fields), Wish(name), {}), action, "because")


def names(plan):
    return [[[one.entry.name for one in unit] for unit in tier] for tier in plan.units()]


@pytest.mark.parametrize(
    ("guests", "expected"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param(
            [awaited("web", depends_on=("db",)), awaited("db")],
            [[["db"]], [["web"]]],
            id="what is needed comes back first",
        ),
        pytest.param(
            [awaited("batch"), awaited("dear", priority=5)],
            [[["dear"]], [["batch"]]],
            id="the important come back first",
        ),
        pytest.param(
            [awaited("n1", group="q"), awaited("x", bytes=5), awaited("n2", group="q", bytes=9)],
            [[["n2", "n1"], ["x"]]],
            id="a group together",
        ),
        pytest.param(
            [awaited("a"), awaited("b", NOTHING), awaited("c", REFUSED)],
            [[["a"]]],
            id="only those that something is done to",
        ),
    ],
)
def test_units(guests, expected):
    assert names(make_resume_plan(guests, Limits(2, 2))) == expected


@pytest.mark.parametrize(
    ("held", "was_running", "wish", "expected"),
    [
        pytest.param(False, True, {}, None, id="as its image says"),
        pytest.param(True, True, {}, "running", id="it ran before we stopped it for its group"),
        pytest.param(True, False, {}, None, id="it stood still before"),
        pytest.param(True, True, {"run_state": "paused"}, None, id="it is to stay paused"),
    ],
)
def test_whether_one_that_comes_back_alone_runs(held, was_running, wish, expected):
    entry = an_entry(held=held, was_running=was_running, group="q")
    assert Returning(entry, Wish("web01", restore=wish), {}).alone == expected


@pytest.mark.parametrize(
    ("with_suspend", "with_resume", "host", "expected"),
    [
        pytest.param({}, {}, None, "as_saved", id="nobody says anything"),
        pytest.param({}, {"run_state": "paused"}, "running", "paused", id="it is to stay paused"),
        pytest.param(
            {"run_state": "paused"}, {}, "running", "paused", id="that was said with the suspend"
        ),
        pytest.param(
            {"run_state": "paused"},
            {"run_state": "running"},
            "running",
            "running",
            id="and something else with the resume",
        ),
        pytest.param(
            {}, {"run_state": "running"}, "paused", "paused", id="it runs once its group is there"
        ),
        pytest.param(
            {}, {"run_state": "as_saved"}, "running", "running", id="its group held it, and it ran"
        ),
        pytest.param({}, {"run_state": "running"}, None, "running", id="alone, it runs at once"),
    ],
)
def test_in_which_state_a_guest_comes_back(with_suspend, with_resume, host, expected):
    returning = Returning(an_entry(options=with_suspend), Wish("web01", restore=with_resume), {})
    assert returning.request(host).run_state == expected


@pytest.mark.parametrize(
    ("was_running", "options", "runs"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"run_state": "paused"}, False),
        (False, {"run_state": "running"}, True),
        (False, {"run_state": "as_saved"}, False),
    ],
)
def test_who_runs_in_the_end(was_running, options, runs):
    told = an_entry(was_running=was_running, options=options)
    assert Returning(told, Wish("web01"), {}).runs is runs


def test_who_is_taken_back_runs_if_it_ran_whatever_its_resume_was_to_do():
    entry = an_entry(held=True, group="q", options={"run_state": "paused", "load": "lazy"})
    assert as_before(entry).alone == "running"
    assert as_before(replace(entry, held=False)).request(None).run_state == "as_saved"
    assert as_before(entry).wanted == {"load": "lazy"}


def test_options_that_were_given_with_the_suspend_are_remembered():
    entry = an_entry(options={"load": "lazy", "prefetch": "none"})
    request = Returning(entry, Wish("web01", restore={"prefetch": "full"}), {}).request(None)
    assert isinstance(request, RestoreRequest)
    assert (request.load, request.prefetch, request.run_state) == ("lazy", "full", "as_saved")


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["running", "failed", "crashed", "left", "shutdown"], True),
        (["running", "verified"], False),
        (["planned"], False),
        ([], True),
    ],
)
def test_a_journal_is_closed_when_nothing_is_left_to_do(states, expected):
    assert is_over([an_entry(str(n), state=state) for n, state in enumerate(states)]) is expected


@pytest.mark.parametrize(
    ("state", "held", "expected"),
    [
        ("verified", False, True),
        ("saving", False, True),
        ("restoring", True, True),
        ("planned", True, True),
        ("planned", False, False),
        ("failed", False, False),
        ("crashed", False, False),
    ],
)
def test_who_keeps_a_journal_open_that_was_rolled_back(state, held, expected):
    assert waits(an_entry(state=state, held=held)) is expected
