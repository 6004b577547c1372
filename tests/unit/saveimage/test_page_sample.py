# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pages are looked at to prove memory."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import Bitmap
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._page_sample import (
    SampledPage,
    sample_pages,
)
from ansible_collections.vmfleet.suspend.tests.support.images import Block, bitmap


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
