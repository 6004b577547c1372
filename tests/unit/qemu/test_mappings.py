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
        (
            "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/qemu",
            Mapping(0x400000, 0x452000, True, 0, 173521),
        ),
        (
            "7ffd1c5f2000-7ffd1c613000 rw-p 00000000 00:00 0                          [stack]",
            Mapping(0x7FFD1C5F2000, 0x7FFD1C613000, True, 0, 0),
        ),
        (
            "7f2bcffff000-7f2beffff000 ---p 120000000000 fe:00 18446744073709551615 /x",
            Mapping(0x7F2BCFFFF000, 0x7F2BEFFFF000, True, 0x120000000000, (1 << 64) - 1),
        ),
        ("", None),
        ("7f2bcffff000-7f2beffff000 rw-p 00100000", None),
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
        ([at(0, 16, 1), at(16, 48, 17), at(48, 64, 49)], True),
        ([at(0, 32, 1), at(32, 64, 33, private=False)], False),
        ([at(0, 32, 1, private=False), at(32, 64, 33)], False),
        ([at(0, 64, 1), at(64, 128, 1, private=False)], True),
        ([at(-64, 0, 1, private=False), at(0, 64, 1)], True),
        ([at(-64, 0, 1), at(64, 128, 65)], False),
        ([at(-1, 65, 1)], False),
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


@pytest.fixture
def image(tmp_path):
    """A file of eight pages, open for reading and writing."""
    with (tmp_path / "image").open("w+b") as file:
        file.truncate(8 * mmap.PAGESIZE)
        yield file


def mapped(file, flags=mmap.MAP_PRIVATE):
    """The pages 1 to 5 of the file, in this process."""
    return mmap.mmap(file.fileno(), 4 * mmap.PAGESIZE, flags, offset=mmap.PAGESIZE)


def test_a_mapping_of_this_process_that_the_kernel_keeps_in_pieces_is_whole(image):
    status, page = os.fstat(image.fileno()), mmap.PAGESIZE
    with mapped(image) as memory:
        memory.madvise(mmap.MADV_DONTFORK, page, page)
        found = mappings_of(os.getpid(), status)
        assert len(found) == 3
        start = min(one.start for one in found)
        assert maps_privately(found, start, 4 * page, page)
        assert maps_privately(found, start + page, 3 * page, 2 * page)
        assert not maps_privately(found, start, 5 * page, page)
        assert not maps_privately(found, start, 4 * page, 0)
        assert not maps_privately(found[:1] + found[2:], start, 4 * page, page)


def test_a_shared_mapping_of_this_process_is_none(image):
    with mapped(image, mmap.MAP_SHARED):
        (found,) = mappings_of(os.getpid(), os.fstat(image.fileno()))
        assert found.private is False
        assert not maps_privately([found], found.start, 4 * mmap.PAGESIZE, mmap.PAGESIZE)


def test_what_this_process_writes_leaves_its_private_mapping_as_it_was(image):
    status = os.fstat(image.fileno())
    with mapped(image) as memory:
        before = mappings_of(os.getpid(), status)
        memory[: mmap.PAGESIZE] = b"x" * mmap.PAGESIZE
        assert mappings_of(os.getpid(), status) == before
        assert len(before) == 1


def test_a_file_without_a_name_is_found_and_after_its_unmapping_is_not(image):
    status = os.fstat(image.fileno())
    os.unlink(image.name)
    with mapped(image):
        assert len(mappings_of(os.getpid(), status)) == 1
    assert mappings_of(os.getpid(), status) == ()


@pytest.mark.parametrize("same", [True, False])
def test_a_file_of_another_filesystem_may_have_the_inodes_number(image, monkeypatch, same):
    status = os.fstat(image.fileno())
    other = os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])
    with mapped(image):
        monkeypatch.setattr(os, "stat", lambda _path: status if same else other)
        assert len(mappings_of(os.getpid(), status)) == (1 if same else 0)


def test_where_nobody_may_look_at_the_file_its_number_must_do(image, monkeypatch):
    def stat(path):
        raise PermissionError(1, "Operation not permitted", path)

    with mapped(image):
        monkeypatch.setattr(os, "stat", stat)
        assert len(mappings_of(os.getpid(), os.fstat(image.fileno()))) == 1


def test_a_process_that_is_gone_cannot_be_looked_at(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        mappings_of(1 << 22, os.stat(tmp_path))
