# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extents, and pages that a file holds although they are marked absent."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import Bitmap
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._extents import (
    data_extents,
    holes,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stale_pages import (
    first_stale_page,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, bitmap

PAGES = 2048
OFFSET = 1 << 20
BLOCK = RamBlock("pc.ram", PAGES * PAGE, PAGE, 4096, PAGES // 8, OFFSET)


def marks(present):
    data = bitmap(Block(page_count=PAGES, pages=dict.fromkeys(present, b"")), "little")
    return Bitmap(data, PAGES)


def stale(path, written, present):
    """written: page -> what lies there."""
    with path.open("w+b") as file:
        file.truncate(OFFSET + PAGES * PAGE + 100)
        for page, content in written.items():
            os.pwrite(file.fileno(), content, OFFSET + page * PAGE)
        return first_stale_page(file.fileno(), BLOCK, marks(present))


def test_a_file_that_was_written_once_has_none(tmp_path):
    assert stale(tmp_path / "f", {3: b"a" * PAGE, 900: b"b"}, {3, 900}) is None


def test_zeros_that_are_written_out_are_as_good_as_a_hole(tmp_path):
    assert stale(tmp_path / "f", {page: bytes(PAGE) for page in range(40, 60)}, {50}) is None


def test_the_first_page_with_old_content_is_named(tmp_path):
    written = {page: b"x" * PAGE for page in range(100, 120)}
    assert stale(tmp_path / "f", written, set(range(100, 120)) - {117, 119}) == 117


def test_a_single_byte_at_the_end_of_a_page_counts(tmp_path):
    assert stale(tmp_path / "f", {7: bytes(PAGE - 1) + b"x"}, set()) == 7


def test_the_first_and_the_last_page_of_a_block_are_looked_at(tmp_path):
    assert stale(tmp_path / "f", {0: b"x"}, set()) == 0
    assert stale(tmp_path / "f", {PAGES - 1: b"x"}, {PAGES - 2}) == PAGES - 1


def test_what_lies_beside_the_block_does_not_count(tmp_path):
    path = tmp_path / "f"
    with path.open("w+b") as file:
        os.pwrite(file.fileno(), b"x" * OFFSET, 0)
        os.pwrite(file.fileno(), b"x" * PAGE, OFFSET + PAGES * PAGE)
        assert first_stale_page(file.fileno(), BLOCK, marks(())) is None


@given(
    st.dictionaries(st.integers(0, PAGES - 1), st.booleans(), max_size=12),
    st.sets(st.integers(0, PAGES - 1), max_size=12),
)
def test_it_is_the_first_absent_page_that_is_not_zero(tmp_path_factory, filled, present):
    written = {page: (b"x" if data else b"\0") * PAGE for page, data in filled.items()}
    expected = min((p for p, data in filled.items() if data and p not in present), default=None)
    assert stale(tmp_path_factory.mktemp("stale") / "f", written, present) == expected


@given(
    st.sets(st.integers(0, 40), max_size=8), st.integers(0, 41 * 65536), st.integers(0, 41 * 65536)
)
def test_extents_and_holes_tile_a_range(tmp_path_factory, written, one, other):
    start, end = sorted((one, other))
    with (tmp_path_factory.mktemp("tiles") / "f").open("w+b") as file:
        file.truncate(41 * 65536)
        for piece in written:
            os.pwrite(file.fileno(), b"x" * 65536, piece * 65536)
        found = [*data_extents(file.fileno(), start, end), *holes(file.fileno(), start, end)]
    position = start
    for piece_start, piece_end in sorted(found):
        assert piece_start == position
        position = piece_end
    assert position == end
