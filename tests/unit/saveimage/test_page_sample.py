# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pages are looked at to prove memory, and which are read first."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import Bitmap
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._page_sample import (
    SampledPage,
    sample_pages,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefetch_order import (
    prefetch_order,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, bitmap

MIB = 1 << 20


def marks(page_count, present):
    block = Block(page_count=page_count, pages=dict.fromkeys(present, b""))
    return Bitmap(bitmap(block, "little"), page_count)


@st.composite
def page_sets(draw):
    page_count = draw(st.integers(1, 300))
    return page_count, draw(st.sets(st.integers(0, page_count - 1)))


@given(page_sets(), st.integers(0, 40), st.integers())
def test_the_ends_of_either_kind_are_always_among_them(pages, each, seed):
    page_count, present = pages
    absent = set(range(page_count)) - present
    sample = sample_pages(marks(page_count, present), page_count, random.Random(seed), each)
    assert all(page.present is (page.number in present) for page in sample)
    numbers = {page.number for page in sample}
    for kind in (present, absent):
        assert not kind or {min(kind), max(kind)} <= numbers
    assert {0, page_count - 1} <= numbers
    assert list(sample) == sorted(set(sample))


def test_chance_reaches_everywhere():
    present = set(range(0, 100_000, 2))
    sample = sample_pages(marks(100_000, present), 100_000, random.Random(1), 64)
    for kind in (True, False):
        quarters = {page.number // 25_000 for page in sample if page.present is kind}
        assert quarters == {0, 1, 2, 3}
        assert sum(page.present is kind for page in sample) > 60


def test_a_block_without_a_page_in_the_image_is_sampled_as_zeros():
    sample = sample_pages(marks(5, ()), 5, random.Random(1), 2)
    assert {page.present for page in sample} == {False}
    assert SampledPage(4, False) in sample


@given(page_sets(), st.data())
def test_the_first_and_the_last_page_of_either_kind_are_found(pages, data):
    page_count, present = pages
    absent = set(range(page_count)) - present
    start = data.draw(st.integers(0, page_count))
    end = data.draw(st.integers(start, page_count))
    found = marks(page_count, present)
    assert found.last_present() == max(present, default=None)
    assert found.last_absent() == max(absent, default=None)
    within = [page for page in absent if start <= page < end]
    assert found.first_absent(start, end) == min(within, default=None)


def blocks(*sizes_mib):
    found, offset = [], MIB
    for number, size in enumerate(sizes_mib):
        found.append(RamBlock(f"ram{number}", size * MIB, PAGE, 0, 0, offset))
        offset += size * MIB
    return found


@pytest.fixture
def image(tmp_path):
    with (tmp_path / "image").open("w+b") as file:
        yield file.fileno()


def test_the_low_part_of_every_block_is_read_before_the_rest_of_any(image):
    os.truncate(image, 201 * MIB)
    for start in (1, 70, 101, 190):
        os.pwrite(image, b"x" * MIB, start * MIB)
    order = prefetch_order(image, blocks(100, 100))
    assert order == [(start * MIB, MIB) for start in (1, 101, 70, 190)]


def test_small_holes_are_read_over_and_large_ones_are_not(image):
    os.truncate(image, 20 * MIB)
    for start in (1 * MIB, 1 * MIB + 192 * 1024, 10 * MIB):
        os.pwrite(image, b"x" * 65536, start)
    order = prefetch_order(image, blocks(16))
    assert order == [(MIB, 256 * 1024), (10 * MIB, 65536)]


def test_what_is_no_page_is_not_read(image):
    os.truncate(image, 20 * MIB)
    os.pwrite(image, b"x" * MIB, 0)
    os.pwrite(image, b"x" * MIB, 18 * MIB)
    assert prefetch_order(image, blocks(16)) == []
