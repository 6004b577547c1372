# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of an image's pages are read ahead of its guest, and in which order."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefetch_order import (
    prefetch_order,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.tests.support.images import MIB, PAGE

EXTENT = 64 << 10


def blocks(*sizes_mib):
    """RAM blocks whose pages lie one behind the other from 1 MiB on."""
    found, offset = [], MIB
    for number, size in enumerate(sizes_mib):
        found.append(RamBlock(f"ram{number}", size * MIB, PAGE, 0, 0, offset))
        offset += size * MIB
    return found


@pytest.fixture
def image(tmp_path):
    with (tmp_path / "image").open("w+b") as file:
        yield file.fileno()


def write(image, *starts_bytes, length_bytes=EXTENT):
    for start in starts_bytes:
        os.pwrite(image, b"x" * length_bytes, start)


def test_the_low_part_of_every_block_is_read_before_the_rest_of_any(image):
    os.truncate(image, 201 * MIB)
    write(image, MIB, 70 * MIB, 101 * MIB, 190 * MIB, length_bytes=MIB)
    order = prefetch_order(image, blocks(100, 100))
    assert order == [(start * MIB, MIB) for start in (1, 101, 70, 190)]


def test_the_low_part_of_a_block_ends_at_its_64_mib_within_an_extent_too(image):
    os.truncate(image, 101 * MIB)
    write(image, 64 * MIB, length_bytes=2 * MIB)
    write(image, 99 * MIB)
    order = prefetch_order(image, blocks(98, 2))
    assert order == [(64 * MIB, MIB), (99 * MIB, EXTENT), (65 * MIB, MIB)]


@pytest.mark.parametrize(
    ("hole_kib", "order"),
    [
        (64, [(10 * MIB, 3 * EXTENT)]),
        (128, [(10 * MIB, 4 * EXTENT)]),
        (192, [(10 * MIB, EXTENT), (10 * MIB + 4 * EXTENT, EXTENT)]),
    ],
)
def test_holes_up_to_128_kib_are_read_over_and_larger_ones_are_not(image, hole_kib, order):
    os.truncate(image, 20 * MIB)
    write(image, MIB, 10 * MIB, 10 * MIB + EXTENT + (hole_kib << 10))
    assert prefetch_order(image, blocks(16)) == [(MIB, EXTENT), *order]


def test_a_hole_between_two_blocks_is_not_read_over(image):
    os.truncate(image, 20 * MIB)
    write(image, 2 * MIB - EXTENT, 2 * MIB)
    order = prefetch_order(image, blocks(1, 16))
    assert order == [(2 * MIB - EXTENT, EXTENT), (2 * MIB, EXTENT)]


def test_what_is_no_page_is_not_read(image):
    os.truncate(image, 20 * MIB)
    write(image, 0, 18 * MIB, length_bytes=MIB)
    assert prefetch_order(image, blocks(16)) == []


def test_a_block_of_a_sequential_stream_has_nothing_to_read(image):
    os.truncate(image, 4 * MIB)
    write(image, MIB)
    assert prefetch_order(image, [RamBlock("pc.ram", 3 * MIB)]) == []


@given(st.sets(st.integers(0, 120 * 16 - 1), max_size=30), st.integers(1, 119))
def test_all_data_of_the_blocks_is_read_once(tmp_path_factory, written, first_mib):
    with (tmp_path_factory.mktemp("order") / "image").open("w+b") as file:
        os.truncate(file.fileno(), 130 * MIB)
        write(file.fileno(), *(MIB + extent * EXTENT for extent in written))
        order = prefetch_order(file.fileno(), blocks(first_mib, 120 - first_mib))
    read = [start + at for start, length in order for at in range(0, length, EXTENT)]
    assert len(read) == len(set(read))
    assert {MIB + extent * EXTENT for extent in written} <= set(read)
    assert all(MIB <= start < 121 * MIB for start in read)
