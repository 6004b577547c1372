# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream for a QEMU that has the mapped RAM already."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._companion import (
    build_companion,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import RamBlock
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, write_mapped

BIG = Block("pc.ram", 600, {page: bytes([page % 255 + 1]) * PAGE for page in range(0, 600, 7)})
SMALL = Block("pc.bios", 64, {page: b"bios" * 1024 for page in range(20)})
FAR = Block("far", 600, {599: b"far." * 1024})


@pytest.fixture(params=["little", "big"])
def image(tmp_path, request):
    path = tmp_path / "image"
    write_mapped(path, [BIG, SMALL, FAR], byte_order=request.param)
    return path


def blocks_of(path):
    with path.open("rb") as file:
        return verify_structure(file.fileno(), str(path))


def companion_of(path, *mapped):
    """Structure of the image, and the companion's bytes and allocated size."""
    with path.open("rb") as file:
        structure = verify_structure(file.fileno(), str(path))
        offset = structure.prefix.header.data_offset_bytes
        fd = build_companion(file.fileno(), structure.head.ram_blocks, set(mapped), offset)
    try:
        status = os.fstat(fd)
        return structure, os.pread(fd, status.st_size, 0), status.st_blocks * 512
    finally:
        os.close(fd)


def left_out(block: RamBlock):
    assert block.bitmap_offset_bytes is not None
    assert block.bitmap_bytes is not None
    assert block.pages_offset_bytes is not None
    bitmap = (block.bitmap_offset_bytes, block.bitmap_offset_bytes + block.bitmap_bytes)
    return bitmap, (block.pages_offset_bytes, block.pages_offset_bytes + block.used_length_bytes)


@pytest.mark.parametrize("mapped", [(), ("pc.ram",), ("pc.ram", "far"), ("far", "pc.bios")])
def test_it_is_the_stream_with_zeros_for_bitmaps_and_pages_of_the_mapped_blocks(image, mapped):
    structure, found, _allocated = companion_of(image, *mapped)
    expected = bytearray(image.read_bytes())
    for block in structure.head.ram_blocks:
        for start, end in left_out(block) if block.name in mapped else ():
            expected[start:end] = bytes(end - start)
    offset = structure.prefix.header.data_offset_bytes
    assert found[offset:] == expected[offset:]
    assert found[:offset] == bytes(offset)  # QEMU begins behind the prefix


def test_it_occupies_what_is_not_mapped_alone(image):
    _structure, _found, everything = companion_of(image)
    _structure, _found, without = companion_of(image, "pc.ram", "far")
    assert without < everything - len(BIG.pages) * PAGE // 2
    assert without < 40 * PAGE


def test_it_is_as_long_as_the_image_where_that_ends_in_a_hole(image):
    blocks, size = blocks_of(image).head.ram_blocks, image.stat().st_size + PAGE
    os.truncate(image, size)
    with image.open("rb") as file:
        fd = build_companion(file.fileno(), blocks, {"pc.ram"}, 0)
    assert os.fstat(fd).st_size == size
    os.close(fd)


def test_the_image_is_left_as_it_is(image):
    before = image.read_bytes()
    companion_of(image, "pc.ram", "far")
    assert image.read_bytes() == before


def test_an_image_that_is_cut_while_it_is_read_ends_the_companions_data(image, monkeypatch):
    blocks = blocks_of(image).head.ram_blocks
    reads: list[object] = []

    def nothing_left(*arguments):
        assert len(reads) < 1000, "it never ends"
        reads.append(arguments)
        return b""

    with image.open("rb") as file:
        monkeypatch.setattr(os, "pread", nothing_left)
        fd = build_companion(file.fileno(), blocks, {"pc.ram"}, 0)
    monkeypatch.undo()
    assert os.fstat(fd).st_size == image.stat().st_size
    os.close(fd)


@pytest.mark.parametrize("call", ["pread", "pwrite", "ftruncate"])
def test_a_companion_that_cannot_be_written_is_closed(image, monkeypatch, call):
    blocks = blocks_of(image).head.ram_blocks

    def fail(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with image.open("rb") as file:
        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            build_companion(file.fileno(), blocks, {"pc.ram"}, 0)
        monkeypatch.undo()
        assert os.listdir("/proc/self/fd") == before


def test_what_a_short_write_left_is_written_too(image, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:1000], at))
    structure, found, _allocated = companion_of(image)
    offset = structure.prefix.header.data_offset_bytes
    assert found[offset:] == image.read_bytes()[offset:]


def test_programs_that_are_started_meanwhile_do_not_inherit_it(image):
    with image.open("rb") as file:
        fd = build_companion(file.fileno(), blocks_of(image).head.ram_blocks, {"pc.ram"}, 0)
    assert os.get_inheritable(fd) is False
    os.close(fd)
