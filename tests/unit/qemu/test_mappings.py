# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a file is mapped into a process, read from /proc."""

from __future__ import annotations

import mmap
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mappings import (
    Mapping,
    mappings_of,
    maps_privately,
    parse_mapping,
)

MIB = 1 << 20
START = 0x7F0000000000


@pytest.mark.parametrize(
    ("line", "mapping"),
    [
        (
            "7f2bcffff000-7f2beffff000 rw-p 00100000 fe:00 2860166      /store/a b.save",
            Mapping(0x7F2BCFFFF000, 0x7F2BEFFFF000, True, 0x100000, 2860166),
        ),
        (
            "7f2bcffff000-7f2beffff000 rw-s 00100000 00:2d 17 /dev/shm/x (deleted)",
            Mapping(0x7F2BCFFFF000, 0x7F2BEFFFF000, False, 0x100000, 17),
        ),
        ("", None),
        ("Size:                  4 kB", None),
    ],
)
def test_a_line_is_read(line, mapping):
    assert parse_mapping(line) == mapping


def at(start_mib, end_mib, offset_mib, private=True):
    return Mapping(START + start_mib * MIB, START + end_mib * MIB, private, offset_mib * MIB, 1)


@pytest.mark.parametrize(
    ("mappings", "whole"),
    [
        ([at(0, 64, 1)], True),
        ([at(-1, 65, 0)], True),
        ([at(32, 64, 33), at(0, 32, 1)], True),
        ([at(0, 64, 1), at(200, 300, 1)], True),
        ([], False),
        ([at(0, 64, 2)], False),
        ([at(0, 64, 1, private=False)], False),
        ([at(0, 63, 1)], False),
        ([at(1, 64, 2)], False),
        ([at(0, 31, 1), at(32, 64, 33)], False),
        ([at(0, 32, 1), at(32, 64, 1)], False),
    ],
)
def test_a_block_is_mapped_when_every_byte_of_it_is_the_file_at_its_place(mappings, whole):
    assert maps_privately(mappings, START, 64 * MIB, MIB) is whole


def test_the_mappings_of_a_file_are_found_whatever_its_name_is_by_now(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(8 * mmap.PAGESIZE))
    (tmp_path / "other").write_bytes(bytes(8 * mmap.PAGESIZE))
    with path.open("rb") as file, (tmp_path / "other").open("rb") as other:
        status = os.fstat(file.fileno())
        assert mappings_of(os.getpid(), status) == ()
        kept = [
            mmap.mmap(one.fileno(), 4 * mmap.PAGESIZE, mmap.MAP_PRIVATE, offset=mmap.PAGESIZE)
            for one in (file, other)
        ]
        path.rename(tmp_path / "renamed")
        (found,) = mappings_of(os.getpid(), status)
        assert (found.private, found.file_offset_bytes) == (True, mmap.PAGESIZE)
        assert found.end - found.start == 4 * mmap.PAGESIZE
        for mapping in kept:
            mapping.close()


def test_a_process_that_is_gone_cannot_be_looked_at(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        mappings_of(1 << 22, os.stat(tmp_path))
