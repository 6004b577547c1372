# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a suspend takes, and who fits into a window."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import (
    Limits,
    Load,
    ends,
    fitting,
    rate,
    total_seconds,
)


def load(key, seconds, tier=0, store=0, unit=None, rank=0):
    return Load(key, tier, store, seconds, unit or key, rank, round((seconds or 0) * 100))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([(0, 1.0), (5, 0.0)], None),
        ([(100, 1.0)], 100.0),
        ([(100, 1.0), (300, 1.0)], 200.0),
        ([(100, 1.0), (100, 3.0)], 50.0),
    ],
)
def test_the_rate_of_a_store_is_what_its_past_saves_took(samples, expected):
    assert rate(samples) == expected


@pytest.mark.parametrize(
    ("loads", "limits", "expected"),
    [
        pytest.param([], Limits(2, 2), {}, id="nothing"),
        pytest.param(
            [load("a", 2.0), load("b", 3.0)], Limits(1, 1), {"a": 2, "b": 5}, id="one by one"
        ),
        pytest.param(
            [load("a", 2.0), load("b", 3.0)], Limits(2, 2), {"a": 2, "b": 3}, id="together"
        ),
        pytest.param(
            [load("a", 2.0), load("b", 3.0), load("c", 4.0)],
            Limits(2, 2),
            {"a": 2, "b": 3, "c": 6},
            id="the third as soon as one has ended",
        ),
        pytest.param(
            [load("a", 2.0), load("b", 3.0, store=1), load("c", 4.0)],
            Limits(3, 1),
            {"a": 2, "b": 3, "c": 6},
            id="a store that is full holds up its own alone",
        ),
        pytest.param(
            [load("a", 2.0), load("b", 3.0), load("c", 1.0, tier=1)],
            Limits(9, 9),
            {"a": 2, "b": 3, "c": 4},
            id="the next tier when all of this one have ended",
        ),
    ],
)
def test_when_each_save_ends(loads, limits, expected):
    assert ends(loads, limits) == expected
    assert total_seconds(loads, limits) == max(expected.values(), default=0)


def test_without_a_measured_store_nothing_is_predicted():
    loads = [load("a", 2.0), load("b", None)]
    assert ends(loads, Limits(2, 2)) is None
    assert total_seconds(loads, Limits(2, 2)) is None
    assert fitting(loads, Limits(2, 2), 100) is None


@pytest.mark.parametrize(
    ("loads", "window", "expected"),
    [
        pytest.param([load("a", 2.0), load("b", 3.0)], 5, {"a", "b"}, id="all"),
        pytest.param([load("a", 2.0), load("b", 3.0)], 4.9, {"a"}, id="the small one among equals"),
        pytest.param([load("a", 2.0), load("b", 3.0, rank=1)], 4, {"b"}, id="the important one"),
        pytest.param([load("a", 2.0), load("b", 3.0)], 1, set(), id="nobody"),
        pytest.param(
            [load("a", 9.0, rank=5), load("b", 1.0)], 4, {"b"}, id="who comes after one too large"
        ),
        pytest.param(
            [load("n1", 2.0, unit="q"), load("n2", 3.0, unit="q"), load("x", 4.0)],
            4,
            {"x"},
            id="a group as a whole",
        ),
        pytest.param(
            [load(str(number), 3.0) for number in range(8)],
            15,
            {"0", "1", "2", "3", "4"},
            id="five of eight",
        ),
    ],
)
def test_who_fits_into_a_window(loads, window, expected):
    assert fitting(loads, Limits(1, 1), window) == expected


@pytest.mark.parametrize(
    ("anyhow", "expected"),
    [
        pytest.param({"large"}, set(), id="who is saved anyhow leaves no time to others"),
        pytest.param({"small"}, {"small"}, id="or just enough for itself"),
        pytest.param({"middle"}, {"middle"}, id="or takes it from a smaller one"),
    ],
)
def test_who_fits_beside_those_that_are_saved_whether_they_fit_or_not(anyhow, expected):
    loads = [load("small", 1.0), load("middle", 3.0), load("large", 9.0)]
    assert fitting(loads, Limits(1, 1), 3.5, anyhow) == expected
