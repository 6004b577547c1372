# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which pages of a RAM block are looked at to prove that memory is what the image says."""

from __future__ import annotations

import random
import typing as t

from ._bitmap import Bitmap

# How far from where chance fell the next page of the wanted kind is looked for.
_REACH_PAGES = 1 << 15


class SampledPage(t.NamedTuple):
    """``present``: the image holds its bytes; else it is zero."""

    number: int
    present: bool


def sample_pages(
    bitmap: Bitmap, page_count: int, chance: random.Random, each: int
) -> tuple[SampledPage, ...]:
    """The first and the last page, the first and the last of those present and of those absent, and
    about ``each`` of either kind by chance; in order, without repetition."""
    ends = (bitmap.first_present(0, page_count), bitmap.last_present())
    present = {page for page in ends if page is not None}
    ends = (bitmap.first_absent(0, page_count), bitmap.last_absent())
    absent = {page for page in ends if page is not None}
    for _draw in range(each):
        start = chance.randrange(page_count)
        end = min(start + _REACH_PAGES, page_count)
        near, hole = bitmap.first_present(start, end), bitmap.first_absent(start, end)
        present |= {near} if near is not None else set()
        absent |= {hole} if hole is not None else set()
    found = [SampledPage(page, True) for page in present]
    return tuple(sorted([*found, *(SampledPage(page, False) for page in absent)]))
