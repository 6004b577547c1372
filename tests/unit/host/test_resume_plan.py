# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order and in whose company guests come back."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._bring_back import Returning
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


def test_what_the_operator_says_of_a_guest_has_the_last_word():
    returning = Returning(an_entry(), Wish("web01", restore={"run_state": "paused"}), {})
    assert returning.request("running").run_state == "paused"


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
