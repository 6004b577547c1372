# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order guests are suspended; they are resumed in the opposite one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._order import Place, tiers


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        pytest.param([], (), id="nobody"),
        pytest.param(
            [
                Place("small", size_bytes=1),
                Place("large", size_bytes=9),
                Place("also", size_bytes=1),
            ],
            (("large", "also", "small"),),
            id="the largest first",
        ),
        pytest.param(
            [Place("db", priority=5), Place("batch", priority=-1), Place("web")],
            (("batch",), ("web",), ("db",)),
            id="the important last",
        ),
        pytest.param(
            [Place("db"), Place("app", depends_on=("db",)), Place("web", depends_on=("app",))],
            (("web",), ("app",), ("db",)),
            id="who needs it goes before it",
        ),
        pytest.param(
            [Place("db"), Place("web", priority=9, depends_on=("db",)), Place("mail", priority=5)],
            (("mail",), ("web",), ("db",)),
            id="what is needed counts as much as who needs it",
        ),
        pytest.param(
            [Place("web", depends_on=("elsewhere",))], (("web",),), id="needs a guest of elsewhere"
        ),
        pytest.param(
            [
                Place("n1", group="quorum", size_bytes=1),
                Place("big", size_bytes=5),
                Place("n2", group="quorum", size_bytes=6),
            ],
            (("n2", "n1", "big"),),
            id="a group in one piece, as large as all of it",
        ),
        pytest.param(
            [Place("n1", group="q"), Place("n2", priority=3, group="q"), Place("x", priority=1)],
            (("x",), ("n1", "n2")),
            id="a group as important as its most important member",
        ),
        pytest.param(
            [Place("n1", group="q", depends_on=("n2",)), Place("n2", group="q")],
            (("n1", "n2"),),
            id="members that need each other stop together anyhow",
        ),
        pytest.param(
            [Place("web", depends_on=("n2",)), Place("n1", group="q"), Place("n2", group="q")],
            (("web",), ("n1", "n2")),
            id="who needs a member needs the group",
        ),
    ],
)
def test_tiers(places, expected):
    assert tiers(places) == expected


@pytest.mark.parametrize(
    ("places", "circle"),
    [
        ([Place("a", depends_on=("a",))], None),
        ([Place("a", depends_on=("b",)), Place("b", depends_on=("a",))], "a needs b needs a"),
        (
            [
                Place("web", depends_on=("n1",)),
                Place("n1", group="q"),
                Place("n2", group="q", depends_on=("web",)),
            ],
            "web needs group q needs web",
        ),
    ],
    ids=["itself", "two", "through a group"],
)
def test_a_circle_is_refused_and_named(places, circle):
    if circle is None:
        assert tiers(places) == (("a",),)
        return
    with pytest.raises(Refused, match=circle):
        tiers(places)


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 3), st.sets(st.integers(0, 9)), st.sampled_from([None, "g", "h"])
        ),
        max_size=10,
    )
)
def test_everybody_has_one_place_and_nobody_stops_before_who_needs_it(drawn):
    # Only on earlier ones, and without groups, so that there is no circle.
    places = [
        Place(
            str(number),
            priority,
            tuple(str(other) for other in needs if other < number) if group is None else (),
            group,
        )
        for number, (priority, needs, group) in enumerate(drawn)
    ]
    found = tiers(places)
    tier_of = {key: number for number, tier in enumerate(found) for key in tier}
    assert sorted(key for tier in found for key in tier) == sorted(place.key for place in places)
    for place in places:
        assert all(tier_of[place.key] < tier_of[needed] for needed in place.depends_on)
