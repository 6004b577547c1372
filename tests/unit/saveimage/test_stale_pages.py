# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages that a file holds although they are marked absent."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import Bitmap
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stale_pages import (
    first_stale_page,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.tests.support.images import (
    MIB,
    PAGE,
    Block,
    bitmap,
)

PAGES = 2048
OFFSET = MIB
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


@pytest.mark.parametrize("page_bytes", [4096, 16384, 65536])
def test_pages_have_the_size_that_the_stream_tells(tmp_path, page_bytes):
    count = 4 * MIB // page_bytes
    block = RamBlock("pc.ram", 4 * MIB, page_bytes, 4096, 64, OFFSET)
    mark = Bitmap(bitmap(Block(page_count=count, pages={0: b"", 2: b""}), "little"), count)
    with (tmp_path / "f").open("w+b") as file:
        file.truncate(OFFSET + 4 * MIB)
        os.pwrite(file.fileno(), b"x" * page_bytes, OFFSET + 2 * page_bytes)
        assert first_stale_page(file.fileno(), block, mark) is None
        os.pwrite(file.fileno(), b"x", OFFSET + 6 * page_bytes - 1)
        assert first_stale_page(file.fileno(), block, mark) == 5


@pytest.mark.parametrize(
    "page",
    [0, 255, 256, 257, 32766, 32767, 32768, 32769, 65535, 65536, 65537, 98302, 98303],
    ids=str,
)
def test_a_stale_page_is_found_wherever_the_search_is_cut_into_pieces(tmp_path, page):
    pages = 98304
    block = RamBlock("pc.ram", pages * PAGE, PAGE, 4096, pages // 8, OFFSET)
    with (tmp_path / "f").open("w+b") as file:
        file.truncate(OFFSET + pages * PAGE)
        first = max(page - 700, 0)  # zeros that are written out around it are one extent with it
        os.pwrite(file.fileno(), bytes(min(1400, pages - first) * PAGE), OFFSET + first * PAGE)
        os.pwrite(file.fileno(), b"x", OFFSET + page * PAGE + 17)
        nothing = Bitmap(bytes(pages // 8), pages)
        assert first_stale_page(file.fileno(), block, nothing) == page
        itself = Bitmap(bitmap(Block(page_count=pages, pages={page: b""}), "little"), pages)
        assert first_stale_page(file.fileno(), block, itself) is None


def test_what_the_image_holds_or_has_as_a_hole_is_not_read(tmp_path, monkeypatch):
    read = []
    pread = os.pread

    def noted(fd, length, offset):
        read.append(((offset - OFFSET) // PAGE, length // PAGE))
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    written = {page: bytes(PAGE) for page in (*range(64, 128), *range(512, 528))}
    stale(tmp_path / "f", written, set(range(64, 112)))
    assert read == [(112, 16), (512, 16)]


def test_a_file_that_is_cut_meanwhile_has_no_old_content(tmp_path, monkeypatch):
    reads: list[object] = []

    def nothing_left(*arguments):
        assert len(reads) < 1000, "it never ends"
        reads.append(arguments)
        return b""

    monkeypatch.setattr(os, "pread", nothing_left)
    assert stale(tmp_path / "f", {3: b"x"}, set()) is None


def test_a_sequential_stream_has_no_pages_to_look_at(tmp_path):
    with (tmp_path / "f").open("w+b") as file, pytest.raises(ValueError, match=r"pc\.ram has no"):
        first_stale_page(file.fileno(), RamBlock("pc.ram", PAGE), marks(()))
