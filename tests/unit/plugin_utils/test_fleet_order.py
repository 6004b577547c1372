# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waves across hosts and batches of hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_order import (
    RESUME,
    SUSPEND,
    WINDOW,
    FleetGuest,
    batches_of,
    hosts_in_order,
    split_by_batches,
    waves_of,
)

WEB1 = FleetGuest("kvm1", "web1", depends_on=("db",))
WEB2 = FleetGuest("kvm2", "web2", depends_on=("db",))
DB = FleetGuest("kvm2", "db", uuid="u-db")
ALONE = FleetGuest("kvm3", "alone")


@pytest.mark.parametrize(
    ("guests", "expected"),
    [
        pytest.param([], (), id="nobody"),
        pytest.param(
            [ALONE, FleetGuest("kvm1", "x")],
            ({"kvm3": ("alone",), "kvm1": ("x",)},),
            id="one wave where nobody needs anybody",
        ),
        pytest.param(
            [WEB1, WEB2, DB],
            ({"kvm1": ("web1",), "kvm2": ("web2",)}, {"kvm2": ("db",)}),
            id="clients of every host before their database",
        ),
        pytest.param(
            [FleetGuest("kvm1", "a", depends_on=("b",)), FleetGuest("kvm1", "b"), ALONE],
            ({"kvm1": ("a", "b"), "kvm3": ("alone",)},),
            id="the order inside a host is its own affair",
        ),
        pytest.param(
            [FleetGuest("kvm1", "db", priority=9), FleetGuest("kvm2", "web")],
            ({"kvm2": ("web",)}, {"kvm1": ("db",)}),
            id="priorities count across hosts",
        ),
        pytest.param(
            [FleetGuest("kvm1", "db", priority=9), FleetGuest("kvm1", "web")],
            ({"kvm1": ("db", "web")},),
            id="priorities on one host alone are its own affair",
        ),
        pytest.param(
            [FleetGuest("kvm1", "web", depends_on=("u-db",)), DB],
            ({"kvm1": ("web",)}, {"kvm2": ("db",)}),
            id="a guest is needed by its UUID",
        ),
        pytest.param(
            [
                FleetGuest("kvm1", "web", depends_on=("db",)),
                FleetGuest("kvm1", "db"),
                FleetGuest("kvm2", "db"),
            ],
            ({"kvm1": ("web", "db"), "kvm2": ("db",)},),
            id="of two of one name that on the same host is meant",
        ),
        pytest.param(
            [FleetGuest("kvm1", "web", depends_on=("elsewhere",)), ALONE],
            ({"kvm1": ("web",), "kvm3": ("alone",)},),
            id="needs a guest that is not in this fleet",
        ),
    ],
)
def test_waves(guests, expected):
    assert waves_of(guests) == expected


def test_a_circle_is_refused():
    with pytest.raises(Refused, match="web1"):
        waves_of([WEB1, FleetGuest("kvm2", "db", depends_on=("web1",))])


@pytest.mark.parametrize(
    ("resume", "expected"), [(False, ("kvm1", "kvm3", "kvm2")), (True, ("kvm2", "kvm1", "kvm3"))]
)
def test_hosts_of_early_waves_come_first(resume, expected):
    waves = waves_of([WEB1, DB, ALONE])
    assert hosts_in_order(["kvm1", "kvm2", "kvm3"], waves, resume=resume) == expected


@pytest.mark.parametrize(
    ("serial", "sizes"),
    [
        (["100%"], [10]),
        ([3], [3, 3, 3, 1]),
        ([1, "30%", 4], [1, 3, 4, 2]),
        (["5%"], [1] * 10),
        ([20], [10]),
    ],
)
def test_batches_are_those_of_ansible(serial, sizes):
    assert [len(batch) for batch in batches_of([str(n) for n in range(10)], serial)] == sizes


@given(st.integers(0, 30), st.lists(st.sampled_from([1, 3, 7, "10%", "50%"]), min_size=1))
def test_every_host_is_in_one_batch(count, serial):
    hosts = [f"kvm{number}" for number in range(count)]
    assert [host for batch in batches_of(hosts, serial) for host in batch] == hosts


@pytest.mark.parametrize(
    ("verb", "batches", "broken"),
    [
        (SUSPEND, [["kvm1"], ["kvm2"]], False),
        (SUSPEND, [["kvm2"], ["kvm1"]], True),
        (RESUME, [["kvm2"], ["kvm1"]], False),
        (RESUME, [["kvm1"], ["kvm2"]], True),
        (WINDOW, [["kvm1"], ["kvm2"]], True),
        (WINDOW, [["kvm1", "kvm2"]], False),
    ],
)
def test_batches_that_would_break_a_dependency_are_told(verb, batches, broken):
    told = split_by_batches([WEB1, DB], batches, verb)
    assert len(told) == broken
    assert not broken or "web1 on kvm1 needs db on kvm2" in told[0]
