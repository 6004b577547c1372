# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a few blocks, past the page cache where that can be had."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._raw_read import read_blocks

BLOCK_BYTES = 4096
both_ways = pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])


@pytest.fixture
def opened(tmp_path):
    """A factory of open files with the content given."""
    fds: list[int] = []

    def make(content):
        path = tmp_path / f"file{len(fds)}"
        path.write_bytes(content)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield make
    for fd in fds:
        os.close(fd)


def flags_of(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL)


@both_ways
def test_blocks_come_in_the_order_asked_for(opened, direct):
    content = os.urandom(3 * BLOCK_BYTES)
    blocks = read_blocks(opened(content), (8192, 0, 4096), BLOCK_BYTES, direct=direct)
    assert blocks == [content[8192:], content[:4096], content[4096:8192]]


@both_ways
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4095, 4097, 8191])
def test_a_block_is_short_at_the_end_of_the_file_and_empty_behind_it(opened, direct, size):
    content = os.urandom(size)
    blocks = read_blocks(opened(content), (0, 4096, 8192), BLOCK_BYTES, direct=direct)
    assert blocks == [content[:4096], content[4096:], b""]


@both_ways
def test_what_an_earlier_block_held_does_not_show_in_a_shorter_one(opened, direct):
    content = b"a" * BLOCK_BYTES + b"b"
    assert read_blocks(opened(content), (0, 4096), BLOCK_BYTES, direct=direct)[1] == b"b"


@both_ways
def test_no_offset_gives_no_block(opened, direct):
    assert read_blocks(opened(b"x"), (), BLOCK_BYTES, direct=direct) == []


@both_ways
def test_the_descriptor_stays_as_it_was(opened, direct):
    fd = opened(os.urandom(BLOCK_BYTES))
    os.lseek(fd, 5, os.SEEK_SET)
    before = flags_of(fd)
    read_blocks(fd, (0,), BLOCK_BYTES, direct=direct)
    assert flags_of(fd) == before
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5


@pytest.fixture
def seen_flags(monkeypatch):
    """Whether each read was past the page cache; calls with ``refusal`` let those fail."""
    seen, preadv = [], os.preadv

    def install(refusal=None):
        def look(fd, buffers, offset):
            direct = bool(flags_of(fd) & os.O_DIRECT)
            seen.append(direct)
            if direct and refusal is not None:
                raise OSError(refusal, os.strerror(refusal))
            return preadv(fd, buffers, offset)

        monkeypatch.setattr(os, "preadv", look)
        return seen

    return install


def test_only_on_request_is_the_page_cache_passed_by(opened, seen_flags):
    fd, seen = opened(os.urandom(BLOCK_BYTES)), seen_flags()
    read_blocks(fd, (0,), BLOCK_BYTES, direct=False)
    assert seen == [False]
    read_blocks(fd, (0,), BLOCK_BYTES, direct=True)
    assert seen == [False, True]


def test_where_a_direct_read_fails_the_page_cache_serves(opened, seen_flags):
    content = os.urandom(2 * BLOCK_BYTES)
    fd, seen = opened(content), seen_flags(errno.EINVAL)
    assert read_blocks(fd, (0, 4096), BLOCK_BYTES, direct=True) == [content[:4096], content[4096:]]
    assert seen == [True, False, False]


def test_where_direct_reads_cannot_be_asked_for_the_page_cache_serves(opened, monkeypatch):
    content, real = os.urandom(BLOCK_BYTES), fcntl.fcntl

    def refuse(fd, command, argument=0):
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert read_blocks(opened(content), (0,), BLOCK_BYTES, direct=True) == [content]


@both_ways
def test_a_read_that_fails_both_ways_is_an_error(tmp_path, direct):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            read_blocks(fd, (0,), BLOCK_BYTES, direct=direct)
    finally:
        os.close(fd)
