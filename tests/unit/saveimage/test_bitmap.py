# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pages are in the image: bitmaps of either byte order, and pages whose data is missing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import ImageInvalid
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import (
    Bitmap,
    PageCounts,
    read_bitmap,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._extents import (
    first_missing_page,
    holes,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, bitmap

EXTENT = 64 << 10  # a multiple of every filesystem's block
ORDERS = ("little", "big")


@st.composite
def page_sets(draw):
    page_count = draw(st.integers(1, 300))
    return page_count, draw(st.sets(st.integers(0, page_count - 1)))


def bits(page_count, pages, byte_order="little"):
    return bitmap(Block(page_count=page_count, pages=dict.fromkeys(pages, b"")), byte_order)


def read(tmp_path, data, page_count, byte_order, name="pc.ram"):
    """The bitmap ``data`` read as QEMU left it, from the middle of a file."""
    path = tmp_path / "bitmap"
    path.write_bytes(b"\xff" * 13 + data)
    size = -(-page_count // 64) * 8
    block = RamBlock(name, page_count * PAGE, PAGE, 13, size, 1 << 20)
    with path.open("rb") as file:
        return read_bitmap(file.fileno(), str(path), block, byte_order)


@given(page_sets(), st.sampled_from(ORDERS))
def test_pages_are_counted_as_they_were_marked_in_either_byte_order(tmp_path_factory, pages, order):
    page_count, present = pages
    data = bits(page_count, present, order)
    counts = read(tmp_path_factory.mktemp("bitmap"), data, page_count, order).count()
    assert counts == PageCounts(len(present), page_count - len(present))


@given(page_sets(), st.data())
def test_the_first_present_page_of_a_range_is_found(pages, data):
    page_count, present = pages
    start = data.draw(st.integers(0, page_count))
    end = data.draw(st.integers(start, page_count))
    expected = min((page for page in present if start <= page < end), default=None)
    found = Bitmap(bits(page_count, present), page_count).first_present(start, end)
    assert found == expected


@given(page_sets(), st.data())
def test_the_first_absent_page_of_a_range_is_found(pages, data):
    page_count, present = pages
    start = data.draw(st.integers(0, page_count))
    end = data.draw(st.integers(start, page_count))
    expected = min((page for page in range(start, end) if page not in present), default=None)
    found = Bitmap(bits(page_count, present), page_count).first_absent(start, end)
    assert found == expected


@given(page_sets())
def test_the_last_page_of_either_kind_is_found(pages):
    page_count, present = pages
    found = Bitmap(bits(page_count, present), page_count)
    assert found.last_present() == max(present, default=None)
    assert found.last_absent() == max(set(range(page_count)) - present, default=None)


@pytest.mark.parametrize("page_count", [1, 7, 8, 9, 63, 64, 65, 128])
def test_bits_of_the_last_word_behind_the_blocks_end_are_no_pages(page_count):
    everything = Bitmap(bits(page_count, range(page_count)), page_count)
    assert everything.first_absent(0, page_count) is None
    assert everything.last_absent() is None
    assert everything.last_present() == page_count - 1
    nothing = Bitmap(bits(page_count, ()), page_count)
    assert nothing.first_absent(0, page_count) == 0
    assert nothing.last_absent() == page_count - 1
    assert nothing.last_present() is None


def test_the_two_byte_orders_are_as_the_hosts_write_them():
    # Page 0 on a little-endian host is bit 0 of byte 0, on s390x bit 0 of byte 7.
    assert bits(65, [0, 8], "little").hex() == "0101000000000000" + "00" * 8
    assert bits(65, [0, 8], "big").hex() == "0000000000000101" + "00" * 8


@pytest.mark.parametrize("byte_order", ORDERS)
@pytest.mark.parametrize("page_count", [1, 7, 8, 63, 100])
def test_a_mark_for_a_page_that_the_block_does_not_have_is_refused(
    tmp_path, byte_order, page_count
):
    marked = bits(-(-page_count // 64) * 64, [page_count], byte_order)
    with pytest.raises(ImageInvalid, match=rf"pc\.ram marks page {page_count}, .* {page_count}"):
        read(tmp_path, marked, page_count, byte_order)


def test_the_other_byte_order_is_noticed_where_marks_fall_beyond_the_end(tmp_path):
    with pytest.raises(ImageInvalid, match="marks page"):
        read(tmp_path, bits(10, [0, 1, 9], "big"), 10, "little")


def test_a_bitmap_that_the_file_does_not_hold_is_refused_where_it_ends(tmp_path):
    with pytest.raises(ImageInvalid, match="ends within the bitmap") as refused:
        read(tmp_path, bits(500, [])[:20], 500, "little")
    assert refused.value.offset_bytes == 33


@pytest.fixture
def sparse(tmp_path):
    """A file of 16 extents with data in those of the given numbers only."""

    def make(written, size=16 * EXTENT):
        path = tmp_path / "sparse"
        with path.open("wb") as file:
            for extent in written:
                file.seek(extent * EXTENT)
                file.write(b"x" * EXTENT)
            file.truncate(size)
        return os.open(path, os.O_RDONLY)

    return make


@pytest.mark.parametrize(
    ("written", "start", "end", "expected"),
    [
        ([], 0, 16, [(0, 16)]),
        (range(16), 0, 16, []),
        ([2, 3], 0, 16, [(0, 2), (4, 16)]),
        ([2, 3], 2, 4, []),
        ([2, 3], 3, 16, [(4, 16)]),
        ([2, 5], 0, 5, [(0, 2), (3, 5)]),
        ([15], 4, 16, [(4, 15)]),
    ],
)
def test_holes_are_found_and_end_where_the_range_ends(sparse, written, start, end, expected):
    fd = sparse(written)
    found = [(a // EXTENT, b // EXTENT) for a, b in holes(fd, start * EXTENT, end * EXTENT)]
    os.close(fd)
    assert found == expected


@pytest.mark.parametrize(("size", "start"), [(4, 0), (4, 4), (4, 8), (0, 0)])
def test_behind_the_end_of_a_file_that_was_cut_meanwhile_everything_is_missing(sparse, size, start):
    fd = sparse(range(size), size * EXTENT)
    found = list(holes(fd, start * EXTENT, 16 * EXTENT))
    os.close(fd)
    assert found == [(max(size, start) * EXTENT, 16 * EXTENT)]


@pytest.mark.parametrize(
    ("present", "written", "missing"),
    [
        ([], [], None),
        ([0], [0], None),
        ([0, 1], [0], 1),
        ([9, 3, 12], [3, 9], 12),
        ([9, 3, 12], [], 3),
        ([0, 15], range(15), 15),
        ([3], range(16), None),
    ],
)
def test_a_present_page_without_data_is_found_and_an_absent_one_may_be_a_hole(
    sparse, present, written, missing
):
    fd = sparse([page + 3 for page in written], size=30 * EXTENT)
    block = RamBlock("pc.ram", 16 * EXTENT, EXTENT, 0, 8, 3 * EXTENT)
    assert first_missing_page(fd, block, Bitmap(bits(16, present), 16)) == missing
    os.close(fd)


def test_a_page_that_lies_in_a_hole_only_in_part_is_missing(sparse):
    fd = sparse([0, 1, 2, 4, 5, 6, 7])
    block = RamBlock("pc.ram", 16 * EXTENT, 4 * EXTENT, 0, 8, 0)
    assert first_missing_page(fd, block, Bitmap(bits(4, [0, 1]), 4)) == 0
    os.close(fd)


def test_a_hole_next_to_a_page_does_not_make_it_missing(sparse):
    fd = sparse([5, 6, 7, 8], size=30 * EXTENT)
    block = RamBlock("pc.ram", 16 * EXTENT, 4 * EXTENT, 0, 8, EXTENT)
    assert first_missing_page(fd, block, Bitmap(bits(4, [1]), 4)) is None
    os.close(fd)


def test_a_huge_block_costs_as_many_steps_as_it_has_extents(sparse, monkeypatch):
    fd = sparse([0, 8], size=64 << 30)
    page_count = (64 << 30) // PAGE
    data = bytearray(page_count // 8)
    data[0], data[8 * EXTENT // PAGE // 8] = 1, 1
    steps, real = [], os.lseek

    def counted(*arguments):
        steps.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(os, "lseek", counted)
    block = RamBlock("pc.ram", 64 << 30, PAGE, 0, len(data), 0)
    assert first_missing_page(fd, block, Bitmap(bytes(data), page_count)) is None
    os.close(fd)
    assert len(steps) <= 6
