# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a sparse file holds data. Its holes, and pages that lie in one: test_bitmap.py."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._extents import (
    data_extents,
    holes,
)

EXTENT = 64 << 10  # a multiple of every filesystem's block


def sparse(path, written, size_bytes=16 * EXTENT):
    """A file with data in the extents of the given numbers only; its descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(fd, size_bytes)
    for extent in written:
        os.pwrite(fd, b"x" * EXTENT, extent * EXTENT)
    return fd


@pytest.mark.parametrize(
    ("written", "start", "end", "expected"),
    [
        ([], 0, 16, []),
        (range(16), 0, 16, [(0, 16)]),
        ([2, 3], 0, 16, [(2, 4)]),
        ([2, 5], 0, 16, [(2, 3), (5, 6)]),
        ([0, 15], 0, 16, [(0, 1), (15, 16)]),
        ([2, 3, 4], 3, 4, [(3, 4)]),  # both ends within one extent
        ([2, 3, 4], 3, 16, [(3, 5)]),
        ([2, 5], 3, 5, []),
        ([2], 4, 4, []),
        ([15], 15, 20, [(15, 16)]),  # nothing lies behind the file's end
        ([15], 16, 20, []),
    ],
)
def test_what_lies_between_the_holes_of_a_range_is_told(tmp_path, written, start, end, expected):
    fd = sparse(tmp_path / "f", written)
    found = [(a // EXTENT, b // EXTENT) for a, b in data_extents(fd, start * EXTENT, end * EXTENT)]
    os.close(fd)
    assert found == expected


@given(
    st.sets(st.integers(0, 40), max_size=8),
    st.integers(0, 41 * EXTENT),
    st.integers(0, 45 * EXTENT),
    st.integers(0, 45 * EXTENT),
)
def test_extents_and_holes_tile_a_range(tmp_path_factory, written, size, one, other):
    start, end = sorted((one, other))
    fd = sparse(tmp_path_factory.mktemp("tiles") / "f", written)
    os.ftruncate(fd, size)
    extents, empty = list(data_extents(fd, start, end)), list(holes(fd, start, end))
    position = start
    for piece_start, piece_end in sorted([*extents, *empty]):
        assert piece_start == position < piece_end
        position = piece_end
    assert position == end
    assert all(not any(os.pread(fd, b - a, a)) for a, b in empty)
    os.close(fd)


def test_a_filesystem_that_does_not_know_holes_has_one_extent_up_to_the_end_of_the_file(
    tmp_path, monkeypatch
):
    def seek(_fd, position, whence):
        """lseek(2) says of such ones: everything is data, and a hole follows the end."""
        if position >= 8 * EXTENT:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return 8 * EXTENT if whence == os.SEEK_HOLE else position

    fd = sparse(tmp_path / "f", [3], 8 * EXTENT)
    monkeypatch.setattr(os, "lseek", seek)
    found = list(data_extents(fd, EXTENT, 16 * EXTENT))
    monkeypatch.undo()
    os.close(fd)
    assert found == [(EXTENT, 8 * EXTENT)]


def test_a_store_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def fail(_fd, _position, _whence):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    fd = sparse(tmp_path / "f", [3])
    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        list(data_extents(fd, 0, 16 * EXTENT))
    monkeypatch.undo()
    os.close(fd)
