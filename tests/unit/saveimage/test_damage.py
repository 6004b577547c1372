# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged images are walked or refused: never another exception, never much memory."""

from __future__ import annotations

import contextlib
import os
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageInvalid,
    VmfleetError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._sample import sample_all
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_decoded,
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.images import (
    DEVICES,
    MIB,
    PAGE,
    Block,
    bitmap,
    libvirt_prefix,
    sequential_stream,
    write_mapped,
)


def filled(name, page_count, pages):
    return Block(name, page_count, {page: bytes([page + 1]) * PAGE for page in pages})


def verify(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return verify_structure(fd, str(path))
    finally:
        os.close(fd)


def written(path):
    """A sound image of two blocks."""
    write_mapped(path, [filled("pc.ram", 100, [0, 1, 50, 99]), filled("pc.bios", 4, [3])])
    return path


def replace(path, place, data):
    with path.open("r+b") as image:
        image.seek(place)
        image.write(data)


def test_sizes_are_those_that_the_filesystem_tells(tmp_path):
    path = written(tmp_path / "image")
    found = verify(path)
    assert found.apparent_bytes == path.stat().st_size
    assert found.allocated_bytes == path.stat().st_blocks * 512
    assert found.ram_bytes == 104 * PAGE


def test_an_image_is_walked_before_it_has_its_complete_magic(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [filled("pc.ram", 9, [1])], prefix=libvirt_prefix(complete=False))
    assert (verify(path).present_pages, verify(path).zero_pages) == (1, 8)


@pytest.mark.parametrize("kept", [MIB - 1, MIB + 50 * PAGE, MIB + 100 * PAGE - 1])
def test_a_cut_within_the_pages_names_the_block_and_the_place(tmp_path, kept):
    path = written(tmp_path / "image")
    os.truncate(path, kept)
    with pytest.raises(ImageInvalid, match=r"truncated: RAM block pc\.ram") as refused:
        verify(path)
    assert refused.value.offset_bytes == kept


def test_a_bitmap_in_another_byte_order_than_the_header_is_noticed(tmp_path):
    path = written(tmp_path / "image")
    block = verify(path).head.ram_blocks[1]
    replace(path, block.bitmap_offset_bytes, bitmap(Block(page_count=4, pages={3: b""}), "big"))
    with pytest.raises(ImageInvalid, match=r"pc\.bios marks page"):
        verify(path)


@pytest.mark.parametrize("reach", [0, 92, 66_000, MIB - 1, MIB, MIB + 60 * PAGE])
def test_a_file_cut_while_it_is_walked_is_refused_like_any_other(tmp_path, monkeypatch, reach):
    path = written(tmp_path / "image")
    real = os.pread

    def cut_behind(fd, length, offset):
        data = real(fd, length, offset)
        os.truncate(path, reach)
        return data

    monkeypatch.setattr(os, "pread", cut_behind)
    with pytest.raises(ImageInvalid):
        verify(path)


def test_a_huge_image_is_walked_in_the_memory_that_its_bitmap_needs(tmp_path):
    path = tmp_path / "image"
    pages = (64 << 30) // PAGE
    write_mapped(path, [filled("pc.ram", pages, [0, 99])])
    tracemalloc.start()
    try:
        assert verify(path).zero_pages == pages - 2
        assert tracemalloc.get_traced_memory()[1] < 12 * (pages // 8)
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A small image, its bytes, and the places of those that a reader looks at."""
    path = tmp_path_factory.mktemp("damage") / "image"
    prefix = libvirt_prefix("<domain/>", "<cookie/>", padding_bytes=1200)
    write_mapped(path, [filled("pc.ram", 20, [0, 3, 19]), filled("pc.bios", 2, [0])], prefix=prefix)
    found = verify(path)
    first, second = (block.bitmap_offset_bytes for block in found.head.ram_blocks)
    assert first is not None and second is not None
    places = [
        *range(first + 8),
        *range(second - 100, second + 8),
        *range(found.head.end_bytes, found.apparent_bytes),
    ]
    return path, path.read_bytes(), places


@contextlib.contextmanager
def changed(path, original, place, data):
    """The image with other bytes at a place, put back afterwards."""
    replace(path, place, data)
    try:
        yield
    finally:
        replace(path, place, original[place : place + len(data)])


def peak_bytes(path):
    """Memory that a walk took, whether it ended with a result or with an error of ours."""
    tracemalloc.start()
    try:
        with contextlib.suppress(VmfleetError):
            verify(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_may_be_changed(sound, data):
    path, original, places = sound
    with contextlib.ExitStack() as changes:
        for _number in range(data.draw(st.integers(1, 4))):
            place, value = data.draw(st.sampled_from(places)), data.draw(st.integers(0, 255))
            changes.enter_context(changed(path, original, place, bytes([value])))
        assert peak_bytes(path) < 4 * MIB


@settings(max_examples=300)
@given(st.data())
def test_any_number_may_be_an_extreme_one(sound, data):
    path, original, places = sound
    place = data.draw(st.sampled_from([place for place in places if place + 8 < len(original)]))
    width = data.draw(st.sampled_from("BHIQ"))
    top = 1 << 8 * struct.calcsize(width)
    value = data.draw(st.sampled_from([0, 1, top - 1, top // 2, top // 2 - 1]))
    number = struct.pack(data.draw(st.sampled_from("<>")) + width, value)
    with changed(path, original, place, number):
        assert peak_bytes(path) < 4 * MIB


@settings(max_examples=100)
@given(st.data())
def test_a_cut_anywhere_is_refused(sound, tmp_path_factory, data):
    _path, original, places = sound
    cut = tmp_path_factory.mktemp("cut") / "image"
    cut.write_bytes(original[: data.draw(st.sampled_from(places))])
    with pytest.raises(ImageInvalid):
        verify(cut)
    cut.unlink()


def decoded(tmp_path, stream):
    """What is found when the stream came out of a decompressor."""
    path = tmp_path / "image"
    path.write_bytes(libvirt_prefix(image_format=1) + b"\x1f\x8b" + bytes(100))
    read_fd, write_fd = os.pipe()
    os.write(write_fd, stream)
    os.close(write_fd)
    sample = sample_all(read_fd)
    try:
        with path.open("rb") as image:
            return verify_decoded(image.fileno(), str(path), sample)
    finally:
        os.close(sample.fd)
        os.close(read_fd)


def test_a_compressed_image_is_walked_by_its_decoded_stream(tmp_path):
    found = decoded(tmp_path, sequential_stream([Block("pc.ram", 64), Block("pc.bios", 2)]))
    assert (found.head.layout, found.ram_bytes) == ("sequential", 66 * PAGE)
    assert (found.present_pages, found.zero_pages) == (None, None)
    assert found.tail is not None and found.tail.devices == DEVICES
    assert found.apparent_bytes == (tmp_path / "image").stat().st_size
    assert found.prefix.header.image_format == 1


def test_a_decoded_stream_that_ends_early_is_not_whole(tmp_path):
    stream = sequential_stream()
    for cut in (1, 20, len(stream) - 10, len(stream)):
        with pytest.raises(ImageInvalid) as refused:
            decoded(tmp_path, stream[:-cut])
        assert refused.value.path.endswith("image, decoded")


def test_a_compressed_stream_within_a_compressed_one_is_refused(tmp_path):
    with pytest.raises(ImageInvalid, match="is compressed, not sequential"):
        decoded(tmp_path, b"\x1f\x8b" + bytes(100))
