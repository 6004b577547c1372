# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""In which order the pages of an image are read ahead of the guest that runs from it."""

from __future__ import annotations

import typing as t

from ._extents import data_extents
from ._stream import RamBlock

# A kernel and what boots with it lie low in the first block, and low in each NUMA node's.
_FIRST_BYTES = 64 << 20
# Smaller holes are read over: one request is cheaper than two.
_BRIDGED_BYTES = 128 << 10


def prefetch_order(fd: int, blocks: t.Sequence[RamBlock]) -> list[tuple[int, int]]:
    """Offset and length in bytes of what holds data: the low part of every block, then the rest."""
    low: list[tuple[int, int]] = []
    high: list[tuple[int, int]] = []
    for block in blocks:
        start = block.pages_offset_bytes
        if start is not None:
            end = start + block.used_length_bytes
            middle = min(start + _FIRST_BYTES, end)
            low += _bridged(data_extents(fd, start, middle))
            high += _bridged(data_extents(fd, middle, end))
    return low + high


def _bridged(extents: t.Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for start, end in extents:
        if ranges and start - sum(ranges[-1]) <= _BRIDGED_BYTES:
            ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
        else:
            ranges.append((start, end - start))
    return ranges
