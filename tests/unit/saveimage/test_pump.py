# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes between a pipe and an image: every one of them, at its place, and no more."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import threading

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._compressors import (
    compressor_of,
    find_program,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import ImageFormat
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._pump import (
    BLOCK_BYTES,
    pump_in,
    pump_out,
    widen_pipe,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._sample import (
    sample_all,
    sample_head,
)

PREFIX = b"prefix".ljust(8192, b".")
LENGTHS = [0, 1, 4095, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 777]


def noise(length):
    return random.Random(length).randbytes(length)


@contextlib.contextmanager
def pipe_from(data, piece=65536):
    """The reading end of a pipe through which ``data`` comes in pieces."""
    read_fd, write_fd = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError):
            for start in range(0, len(data), piece):
                os.write(write_fd, data[start : start + piece])
        os.close(write_fd)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield read_fd
    finally:
        feeder.join()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(PREFIX)
    fd = os.open(path, os.O_RDWR)
    yield fd, path
    os.close(fd)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_stream_is_written_behind_the_prefix_to_its_exact_length(image, length, direct):
    fd, path = image
    os.pwrite(fd, b"an older and longer tail", len(PREFIX) + 5 * BLOCK_BYTES)
    with pipe_from(noise(length), piece=50_001) as pipe:
        written = pump_in(pipe, fd, str(path), len(PREFIX), direct=direct)
    assert written == length
    assert path.read_bytes() == PREFIX + noise(length)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("offset", [4096, 5001])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_image_is_read_from_any_offset_to_its_last_byte(image, length, offset, direct):
    fd, path = image
    data = noise(length)
    os.ftruncate(fd, offset)
    os.pwrite(fd, data, offset)
    read_fd, write_fd = os.pipe()
    result = []
    pump = threading.Thread(
        target=lambda: result.append(pump_out(fd, write_fd, str(path), offset, direct=direct))
    )
    pump.start()
    with open(read_fd, "rb") as reader:
        received = reader.read()
    pump.join()
    assert received == data
    assert result == [length]


@pytest.mark.parametrize("direct", [False, True])
def test_only_what_was_asked_to_goes_past_the_page_cache(image, monkeypatch, direct):
    fd, path = image
    flags, real = [], os.open

    def watched(name, wanted, *mode):
        flags.append(wanted)
        return real(name, wanted, *mode)

    monkeypatch.setattr(os, "open", watched)
    with pipe_from(b"stream") as pipe:
        pump_in(pipe, fd, str(path), len(PREFIX), direct=direct)
    read_fd, write_fd = os.pipe()
    pump_out(fd, write_fd, str(path), len(PREFIX), direct=direct)
    os.close(read_fd)
    assert [bool(wanted & os.O_DIRECT) for wanted in flags] == [direct, direct]


def test_a_pipe_is_widened_to_a_block_where_that_is_allowed(image):
    read_fd, write_fd = os.pipe()
    widen_pipe(write_fd)
    assert fcntl.fcntl(read_fd, fcntl.F_GETPIPE_SZ) == BLOCK_BYTES
    os.close(read_fd)
    os.close(write_fd)
    fd, _path = image
    widen_pipe(fd)  # no pipe: nothing to widen, and no error


def test_a_reader_that_has_enough_ends_the_pump_without_an_error(image):
    fd, path = image
    os.pwrite(fd, noise(4 * BLOCK_BYTES), 0)
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    assert pump_out(fd, write_fd, str(path), 0, direct=False) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write_fd)


def test_a_full_disk_is_a_store_error_with_its_place_and_the_writer_notices():
    full = os.open("/dev/full", os.O_RDWR)
    with (
        pipe_from(noise(4 * BLOCK_BYTES)) as pipe,
        pytest.raises(StoreError, match=r"/store/image.*offset 8192.*No space left") as refused,
    ):
        pump_in(pipe, full, "/store/image", 8192, direct=False)
    os.close(full)
    assert refused.value.facts["errno"] == errno.ENOSPC


@pytest.mark.parametrize("length", [0, 100, 1 << 20, (1 << 20) + 1, 15 << 20])
def test_a_sample_keeps_head_and_tail_of_a_stream_at_their_offsets(length):
    data = noise(length)
    with pipe_from(data) as pipe:
        sample = sample_all(pipe)
        os.close(pipe)
    try:
        assert sample.length_bytes == os.fstat(sample.fd).st_size == length
        head, tail = min(length, 1 << 20), max(0, length - (10 << 20))
        assert os.pread(sample.fd, head, 0) == data[:head]
        assert os.pread(sample.fd, length, tail) == data[tail:]
    finally:
        os.close(sample.fd)


@pytest.mark.parametrize("length", [0, 100, 3 << 20])
def test_a_sample_of_the_head_reads_no_further(length):
    data = noise(length)
    with pipe_from(data) as pipe:
        sample = sample_head(pipe)
        os.close(pipe)
    try:
        assert sample.length_bytes == min(length, 1 << 20)
        assert os.pread(sample.fd, length, 0) == data[: 1 << 20]
    finally:
        os.close(sample.fd)


def test_every_compressed_format_has_a_program_and_the_others_have_none():
    programs = {fmt.label: compressor_of(fmt.label) for fmt in ImageFormat}
    assert {label for label, found in programs.items() if found is None} == {"raw", "sparse"}
    assert all(found.program == label for label, found in programs.items() if found)


def test_a_missing_program_is_named_with_the_package_that_has_it(tmp_path, monkeypatch):
    xz = compressor_of("xz")
    assert xz is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="xz-utils"):
        find_program(xz)
    program = tmp_path / "xz"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_program(xz) == str(program)
