# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with a QEMU that a restore which died has touched: the whole table."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._bookmark import (
    Bookmark,
    StateBefore,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._recovery import (
    Remedy,
    decide,
)
from ansible_collections.vmfleet.suspend.tests.support.values import IMAGE

INODE = 4711
MINE = Bookmark("restore", IMAGE, INODE, StateBefore("inmigrate", {}, {}))
OTHERS = Bookmark("restore", "/store/db01.save", 4712, StateBefore("inmigrate", {}, {}))
REFUSED = "refused"
ANY = "any"
LOADING = ("setup", "active", "device", "cancelling", "a status of tomorrow")
FAILED = ("failed", "cancelled")
STATUSES = (None, "none", "completed", *FAILED, *LOADING)
LOADED = ("paused", "prelaunch", "postmigrate")
RUN_STATES = ("inmigrate", *LOADED, "running", "io-error", "shutdown")
BOOKMARKS = (None, MINE, OTHERS)


def remedy_of(run_state, status, bookmark, started_by_us):
    """The remedy, or REFUSED."""
    try:
        return decide(run_state, status, bookmark, INODE, started_by_us=started_by_us)
    except Refused:
        return REFUSED


@pytest.mark.parametrize(
    ("run_state", "statuses", "bookmark", "started_by_us", "remedy"),
    [
        # It waits, and nothing was loaded.
        ("inmigrate", (None, "none"), None, ANY, Remedy.NOTHING),
        ("inmigrate", (None, "none"), MINE, ANY, Remedy.TIDY),
        ("inmigrate", (None, "none"), OTHERS, ANY, Remedy.TIDY),
        # It loads.
        ("inmigrate", LOADING, MINE, ANY, Remedy.WAIT),
        ("inmigrate", LOADING, OTHERS, ANY, Remedy.WAIT),
        ("inmigrate", LOADING, None, ANY, REFUSED),
        # It failed to load, and cannot be used again.
        *[("inmigrate", FAILED, mark, True, Remedy.END) for mark in BOOKMARKS],
        *[("inmigrate", FAILED, mark, False, REFUSED) for mark in BOOKMARKS],
        # It has loaded.
        *[(state, STATUSES, MINE, ANY, Remedy.FINISH) for state in LOADED],
        *[(state, STATUSES, OTHERS, ANY, REFUSED) for state in LOADED],
        *[(state, STATUSES, None, ANY, Remedy.NOTHING) for state in LOADED],
        # Its guest has run.
        ("running", STATUSES, MINE, ANY, Remedy.NOTHING),
        ("running", STATUSES, OTHERS, ANY, REFUSED),
        ("running", STATUSES, None, ANY, Remedy.NOTHING),
        ("io-error", STATUSES, MINE, ANY, Remedy.NOTHING),
        ("shutdown", STATUSES, None, ANY, Remedy.NOTHING),
    ],
)
def test_the_remedy(run_state, statuses, bookmark, started_by_us, remedy):
    for status, ours in itertools.product(
        statuses, [True, False] if started_by_us == ANY else [started_by_us]
    ):
        assert remedy_of(run_state, status, bookmark, ours) == remedy, (status, ours)


ROWS = [
    (*row, remedy_of(*row))
    for row in itertools.product(RUN_STATES, STATUSES, BOOKMARKS, [True, False])
]


def rows(remedy):
    found = [row[:4] for row in ROWS if row[4] == remedy]
    assert found
    return found


def test_only_a_qemu_that_we_started_and_that_failed_to_load_is_ended():
    for run_state, status, _bookmark, started_by_us in rows(Remedy.END):
        assert (run_state, started_by_us) == ("inmigrate", True)
        assert status in FAILED


def test_only_the_guest_of_this_very_image_is_finished():
    for run_state, _status, bookmark, _started_by_us in rows(Remedy.FINISH):
        assert bookmark == MINE
        assert run_state in LOADED


@pytest.mark.parametrize("remedy", [Remedy.TIDY, Remedy.WAIT])
def test_a_qemu_that_waits_is_only_tidied_or_joined_where_a_run_left_its_bookmark(remedy):
    for run_state, _status, bookmark, _started_by_us in rows(remedy):
        assert run_state == "inmigrate"
        assert bookmark is not None


def test_a_guest_whose_vcpus_ran_is_never_touched():
    for run_state, *_rest, remedy in ROWS:
        if run_state not in ("inmigrate", *LOADED):
            assert remedy in (Remedy.NOTHING, REFUSED)


def test_a_qemu_without_a_bookmark_is_somebody_elses():
    for _run_state, _status, bookmark, started_by_us, remedy in ROWS:
        if bookmark is None and not started_by_us:
            assert remedy in (Remedy.NOTHING, REFUSED)


@pytest.mark.parametrize(
    ("run_state", "status", "bookmark", "words"),
    [
        ("paused", None, OTHERS, ["/store/db01.save", "Run that restore again", "end this QEMU"]),
        ("inmigrate", "failed", MINE, ["cannot be used for another try", "start a new one"]),
        ("inmigrate", "active", None, ["Another program is loading a guest into this QEMU"]),
    ],
)
def test_a_refusal_says_what_to_do(run_state, status, bookmark, words):
    with pytest.raises(Refused) as refused:
        decide(run_state, status, bookmark, INODE, started_by_us=False)
    assert [word for word in words if word not in refused.value.message] == []
