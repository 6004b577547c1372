# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is chosen for a store, by how fast it was measured to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt_transfer import (
    left_to_libvirt,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._measured import Figure, choose
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._negotiation import (
    Ask,
    Offer,
    negotiate,
)

MIB = 1 << 20
OFFER = Offer(
    {name: False for name in ("events", "mapped-ram", "multifd")},
    {"direct-io": False, "multifd-channels": 2},
    migrate_incoming_exit_on_error=True,
)


def figures(direct, buffered):
    """From MiB/s with 1 and with 4 channels."""
    found = []
    for is_direct, speeds in ((True, direct), (False, buffered)):
        found += [
            Figure(is_direct, channels, speed * MIB)
            for channels, speed in zip((1, 4), speeds, strict=False)
        ]
    return found


def chosen(direct, buffered):
    measured = choose(figures(direct, buffered))
    assert measured is not None
    return measured


@pytest.mark.parametrize(
    ("direct", "buffered", "expected"),
    [
        ([1000, 3000], [1000, 3000], (True, 4)),
        ([1000, 1050], [900, 950], (True, 1)),
        ([1000, 2000], [1200, 2400], (True, 4)),
        ([1000, 2000], [1200, 2600], (False, 4)),
        ([3.6, 3.6], [4000, 4100], (False, 1)),
        ([], [800, 1000], (False, 4)),
        ([2000], [1000], (True, 1)),
    ],
    ids=[
        "equal",
        "one channel does",
        "buffered a little faster",
        "buffered clearly faster",
        "the POWER host",
        "no O_DIRECT",
        "one processor",
    ],
)
def test_o_direct_unless_buffered_is_clearly_faster_and_few_channels(direct, buffered, expected):
    measured = chosen(direct, buffered)
    assert (measured.bypass_cache, measured.channels) == expected


def test_without_figures_nothing_is_chosen():
    assert choose([]) is None


def test_the_words_tell_the_figures():
    measured = chosen([3.6, 3.6], [4000, 4100])
    figures_told = "measured on this store: O_DIRECT 4 MiB/s, buffered 4000 MiB/s"
    assert measured.why_bypass_cache == figures_told
    assert measured.why_channels == "measured on this store: 4000 MiB/s with 1, 4100 MiB/s with 4"
    without = chosen([], [800, 1000])
    assert without.why_bypass_cache.endswith("buffered 1000 MiB/s; the filesystem refuses O_DIRECT")


ASK = Ask("save", "mapped-ram", None, None, None, cpu_count=2, direct_io_proved=None)
FAST = chosen([1000, 3000], [1000, 1000])
FAST_TOGETHER = chosen([200, 900], [600, 600])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, 4)),
        ({"bypass_cache": False}, (False, 4)),
        ({"channels": 2}, (True, 2)),
        ({"direct_io_proved": False}, (False, 4)),
        ({"measured": None}, (False, 2)),
        ({"layout": "sequential"}, (True, 0)),
        ({"layout": "sequential", "measured": FAST_TOGETHER}, (False, 0)),
    ],
    ids=[
        "left out",
        "cache asked",
        "channels asked",
        "refused",
        "not measured",
        "one stream",
        "O_DIRECT is fast with more than one stream alone",
    ],
)
def test_what_was_asked_for_wins_over_what_was_measured(changes, expected):
    negotiated = negotiate(replace(ASK, **{"measured": FAST, **changes}), OFFER)
    assert (negotiated.bypass_cache, negotiated.channels) == expected


@pytest.mark.parametrize(
    ("layout", "asked", "expected"),
    [
        ("mapped-ram", {}, (True, 4)),
        ("mapped-ram", {"bypass_cache_asked": False}, (False, 4)),
        ("mapped-ram", {"channels_asked": 2}, (True, 2)),
        ("mapped-ram", {"may_choose": False}, (True, 1)),
        ("sequential", {}, (False, 0)),
    ],
)
def test_libvirt_is_told_what_was_measured_for_sparse_images_alone(layout, asked, expected):
    options = {"channels_asked": None, "bypass_cache_asked": None, "cpu_count": 2, **asked}
    negotiated = left_to_libvirt(layout, measured=FAST, **options)
    assert (negotiated.bypass_cache, negotiated.channels) == expected
