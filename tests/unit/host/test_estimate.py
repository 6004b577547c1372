# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a guest's RAM the host holds, from /proc/PID/smaps."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._estimate import (
    largest_with,
    parse_smaps,
    resident_bytes,
)

KIB, MIB = 1 << 10, 1 << 20
SMAPS = """\
7f0000000000-7f0004000000 rw-p 00000000 00:00 0
Size:              65536 kB
Rss:                1024 kB
Pss:                1024 kB
Swap:                 16 kB
SwapPss:              16 kB
VmFlags: rd wr mr mw me ac
7f0010000000-7f0018000000 rwxp 00000000 00:00 0
Size:             131072 kB
Rss:                2048 kB
7f0020000000-7f0024000000 rw-s 00000000 00:0f 12 /dev/hugepages/ram
Size:              65536 kB
Rss:                   0 kB
Shared_Hugetlb:     4096 kB
Private_Hugetlb:    2048 kB
"""
PLAIN, HUGE = 0x7F0000000000, 0x7F0020000000


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([(PLAIN, 64 * MIB)], 1040 * KIB, id="in memory and swapped out"),
        pytest.param([(HUGE, 64 * MIB)], 6144 * KIB, id="huge pages"),
        pytest.param([(PLAIN, 64 * MIB), (HUGE, 64 * MIB)], 7184 * KIB, id="several"),
        pytest.param(
            [(PLAIN, 512 * KIB)], 512 * KIB, id="part of a mapping: never more than it is"
        ),
        pytest.param([(0x1000, 4096)], None, id="not mapped"),
    ],
)
def test_what_is_resident_of_ram_blocks(blocks, expected):
    assert resident_bytes(parse_smaps(SMAPS), blocks) == expected


@pytest.mark.parametrize(
    ("memory_bytes", "expected"),
    [
        pytest.param(128 * MIB, None, id="translated code is no RAM"),
        pytest.param(64 * MIB, None, id="two that might be"),
        pytest.param(256 * MIB, None, id="none that might be"),
    ],
)
def test_a_domains_ram_is_told_only_where_it_is_sure(memory_bytes, expected):
    assert largest_with(parse_smaps(SMAPS), memory_bytes) == expected


def test_the_one_mapping_that_is_large_enough_is_a_domains_ram():
    plain = parse_smaps(SMAPS)[:2]
    assert largest_with(plain, 64 * MIB) == 1040 * KIB


def test_nothing_is_read_from_nothing():
    assert parse_smaps("") == []
