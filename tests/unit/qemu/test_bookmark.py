# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bookmark that a run leaves in QEMU: written, read back, and told from other people's."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._bookmark import (
    Bookmark,
    Found,
    StateBefore,
    find_bookmarks,
)
from ansible_collections.vmfleet.suspend.tests.support.fake_qemu import FakeQemu
from ansible_collections.vmfleet.suspend.tests.support.model_guest import with_monitor
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor
from ansible_collections.vmfleet.suspend.tests.support.values import BOOKMARK, OFFER

TEXT = BOOKMARK.text()
TAG = TEXT[: TEXT.index("{")]

# Paths as the system gives them: any bytes but NUL, undecodable ones as surrogates.
PATHS = st.binary(min_size=1).map(lambda name: "/" + os.fsdecode(name.replace(b"\0", b"/")))
PLAIN = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
STATES = st.builds(
    StateBefore,
    st.text(),
    st.dictionaries(st.text(), st.booleans()),
    st.dictionaries(st.text(), JSON),
)
BOOKMARKS = st.builds(
    Bookmark, st.sampled_from(["save", "restore"]), PATHS, st.integers(0, 2**64 - 1), STATES
)


@given(BOOKMARKS)
def test_a_bookmark_is_read_back_as_it_was_written(bookmark):
    assert Bookmark.parse(bookmark.text()) == bookmark


@given(BOOKMARKS)
def test_its_text_survives_a_channel_of_ascii(bookmark):
    assert bookmark.text().isascii()
    assert "\0" not in bookmark.text()


@given(STATES)
def test_a_state_is_read_back_as_it_was_written(state):
    assert StateBefore.from_dict(json.loads(json.dumps(state.as_dict()))) == state


@given(JSON)
def test_a_state_that_is_something_else_is_none(data):
    assert StateBefore.from_dict(data) is None


@pytest.mark.parametrize("missing", ["run_state", "capabilities", "parameters"])
@pytest.mark.parametrize("value", [None, 7, ["running"]])
def test_a_state_of_which_a_part_is_something_else_is_none(missing, value):
    assert StateBefore.from_dict({**BOOKMARK.before.as_dict(), missing: value}) is None


def test_settings_that_this_qemu_lacks_are_left_out():
    before = StateBefore("running", {"events": True, "rdma": True}, {"direct-io": True, "gone": 1})
    offer = before.offer(OFFER)
    assert offer.capabilities == {"events": True}
    assert offer.parameters == {"direct-io": True}


# Other people's descriptors.


@given(st.text().filter(lambda text: not text.startswith(TAG)))
def test_a_text_of_somebody_else_is_no_bookmark(text):
    assert Bookmark.parse(text) is None


@given(JSON)
def test_another_json_under_our_tag_is_no_bookmark(data):
    assert Bookmark.parse(TAG + json.dumps(data)) is None


@given(st.integers(0, len(TEXT) - 1))
def test_a_text_that_was_cut_is_no_bookmark(length):
    assert Bookmark.parse(TEXT[:length]) is None


@given(st.integers(len(TAG), len(TEXT) - 1), st.characters(codec="ascii"))
def test_a_damaged_text_is_read_or_none_and_never_an_error(position, character):
    damaged = TEXT[:position] + character + TEXT[position + 1 :]
    assert isinstance(Bookmark.parse(damaged), (Bookmark, type(None)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("doing", None),
        ("doing", "dump"),
        ("path", None),
        ("path", 7),
        ("inode", None),
        ("inode", "4711"),
        ("before", None),
        ("before", {}),
    ],
)
def test_a_bookmark_of_which_a_part_is_something_else_is_none(key, value):
    data = {**json.loads(TEXT[len(TAG) :]), key: value}
    assert Bookmark.parse(TAG + json.dumps(data)) is None


# In a QEMU.


@pytest.fixture
def find(tmp_path):
    """What is found in a QEMU with fdsets whose descriptors carry these texts."""

    def find_in(fdsets):
        with ScriptedMonitor(tmp_path / "qmp", FakeQemu()) as monitor:
            monitor.expect("query-fdsets").returns(
                [
                    {
                        "fdset-id": number,
                        "fds": [
                            {"fd": 40 + at} if text is None else {"fd": 40 + at, "opaque": text}
                            for at, text in enumerate(texts)
                        ],
                    }
                    for number, texts in fdsets.items()
                ]
            )
            return with_monitor(monitor.path, find_bookmarks)

    return find_in


def test_in_a_qemu_without_fdsets_there_is_none(find):
    assert find({}) == ()


def test_it_is_found_among_the_fdsets_of_others(find):
    others = {0: [None], 1: ["rdwr:/dev/vfio/7"], 3: ["", "{}"], 4: []}
    assert find({**others, 2: [TEXT]}) == (Found(2, BOOKMARK),)


def test_a_set_with_a_second_descriptor_for_o_direct_is_one_bookmark(find):
    assert find({0: [TEXT, TEXT]}) == (Found(0, BOOKMARK),)


def test_it_is_found_behind_another_descriptor_in_its_set(find):
    assert find({5: [None, TEXT]}) == (Found(5, BOOKMARK),)


def test_several_are_all_found(find):
    other = Bookmark("restore", "/store/db01.save", 4712, BOOKMARK.before)
    assert find({0: [TEXT], 7: [other.text()]}) == (Found(0, BOOKMARK), Found(7, other))
