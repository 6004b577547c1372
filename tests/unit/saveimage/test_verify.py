# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walking whole images: mapped-ram in either byte order, sequential, compressed, damaged."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import ImageInvalid
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._bitmap import (
    Bitmap,
    read_bitmap,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import (
    read_stream_head,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.images import (
    DEVICES,
    MIB,
    PAGE,
    Block,
    configuration,
    header,
    libvirt_prefix,
    ram_start,
    sequential_stream,
    text,
    write_mapped,
)

FULL_PAGE = b"\xa5" * PAGE


@contextlib.contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def verify(path):
    with opened(path) as fd:
        return verify_structure(fd, str(path))


def write_stream(path, stream, **prefix_fields):
    path.write_bytes(libvirt_prefix(**prefix_fields) + stream)
    return path


@st.composite
def block_lists(draw):
    names = draw(
        st.lists(
            st.sampled_from(["pc.ram", "vga.vram", "pc.bios", "x" * 255]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    blocks = []
    for name in names:
        count = draw(st.integers(1, 200))
        present = draw(st.sets(st.integers(0, count - 1), max_size=12))
        blocks.append(Block(name, count, dict.fromkeys(present, FULL_PAGE)))
    return blocks


@settings(max_examples=40)
@given(blocks=block_lists(), byte_order=st.sampled_from(["little", "big"]))
def test_every_block_and_page_of_a_mapped_ram_image_is_told(tmp_path_factory, blocks, byte_order):
    path = tmp_path_factory.mktemp("image") / "image"
    write_mapped(path, blocks, byte_order=byte_order)
    structure = verify(path)
    assert structure.head.layout == "mapped-ram"
    assert structure.head.machine == "pc-i440fx-10.0"
    assert [(b.name, b.page_count, b.page_size_bytes) for b in structure.head.ram_blocks] == [
        (b.name, b.page_count, PAGE) for b in blocks
    ]
    assert [count.present for count in structure.pages] == [len(b.pages) for b in blocks]
    assert structure.present_pages + structure.zero_pages == sum(b.page_count for b in blocks)
    assert structure.tail.devices == DEVICES
    assert structure.apparent_bytes == path.stat().st_size
    with opened(path) as fd:
        for told, block in zip(structure.head.ram_blocks, blocks, strict=True):
            bits = read_bitmap(fd, str(path), told, byte_order)
            marked = {p for p in range(block.page_count) if bits.first_present(p, p + 1) == p}
            assert marked == set(block.pages)
            for page, content in block.pages.items():
                assert os.pread(fd, PAGE, told.pages_offset_bytes + page * PAGE) == content


@given(data=st.binary(min_size=1, max_size=40), start=st.integers(0, 320), end=st.integers(0, 320))
def test_the_first_present_page_of_a_range_is_found_as_by_looking_at_each(data, start, end):
    bits = Bitmap(data, len(data) * 8)
    end = min(end, len(data) * 8)
    each = [page for page in range(start, end) if data[page // 8] >> page % 8 & 1]
    assert bits.first_present(start, end) == (each[0] if each else None)
    assert bits.count().present == sum(bin(byte).count("1") for byte in data)


def test_a_sequential_stream_tells_its_blocks_but_not_its_pages(tmp_path):
    path = write_stream(tmp_path / "image", sequential_stream([Block("pc.ram", 64)]))
    structure = verify(path)
    assert structure.head.layout == "sequential"
    assert [(b.name, b.used_length_bytes) for b in structure.head.ram_blocks] == [
        ("pc.ram", 64 * PAGE)
    ]
    assert (structure.present_pages, structure.zero_pages) == (None, None)


def test_the_stream_and_not_the_header_says_whether_ram_is_mapped(tmp_path):
    # libvirt writes format 6 before a plain stream with snapshot_image_format = "sparse".
    path = write_stream(tmp_path / "image", sequential_stream(), image_format=6)
    assert verify(path).head.layout == "sequential"


@pytest.mark.parametrize(
    ("magic", "compressor"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x89LZO\x00\r\n\x1a\n", "lzop"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
)
def test_a_compressed_stream_is_named_and_not_looked_into(tmp_path, magic, compressor):
    structure = verify(write_stream(tmp_path / "image", magic + bytes(100)))
    assert (structure.head.layout, structure.head.compressor) == ("compressed", compressor)
    assert structure.tail is None


def test_a_present_page_in_a_file_hole_is_found_and_named(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", 600, {5: FULL_PAGE, 300: FULL_PAGE, 599: FULL_PAGE})])
    block = verify(path).head.ram_blocks[0]
    hole = block.pages_offset_bytes + 300 * PAGE
    punch = ["fallocate", "--punch-hole", "--offset", str(hole), "--length", str(PAGE), str(path)]
    subprocess.run(punch, check=True)
    with pytest.raises(ImageInvalid, match=r"page 300 of RAM block pc\.ram") as refused:
        verify(path)
    assert refused.value.offset_bytes == hole


def test_a_save_that_was_killed_is_not_whole(tmp_path):
    # Zero bitmaps, nearly the final size, no end marker (QEMU killed at 10 %).
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", 64)])
    size = verify(path).head.ram_blocks[0].pages_offset_bytes + 64 * PAGE
    os.truncate(path, size)
    with pytest.raises(ImageInvalid, match="never finished"):
        verify(path)


@pytest.mark.parametrize("cut_bytes", [1, 10, 100])
@pytest.mark.parametrize("layout", ["mapped-ram", "sequential"])
def test_an_image_that_was_cut_at_its_end_is_not_whole(tmp_path, layout, cut_bytes):
    path = tmp_path / "image"
    if layout == "mapped-ram":
        write_mapped(path, [Block("pc.ram", 64, {0: FULL_PAGE})])
    else:
        write_stream(path, sequential_stream())
    os.truncate(path, path.stat().st_size - cut_bytes)
    with pytest.raises(ImageInvalid):
        verify(path)


def test_something_behind_the_end_is_refused(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [Block()])
    with path.open("ab") as image:
        image.write(b"more")
    with pytest.raises(ImageInvalid, match="appended"):
        verify(path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (0, 2, "version 2"),
        (1, 0, "pages of 0 bytes"),
        (1, 3000, "pages of 3000 bytes"),
        (1, 1 << 40, "pages of"),
        (2, 0, "overlap"),
        (3, 100, "overlap"),
        (3, MIB + 1, "not aligned"),
        (3, 1 << 50, "truncated"),
    ],
)
def test_a_mapped_ram_header_that_cannot_be_is_refused(tmp_path, field, value, words):
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", 64)])
    block = verify(path).head.ram_blocks[0]
    start = block.bitmap_offset_bytes - 28
    with path.open("r+b") as image:
        offset, kind = [(0, ">I"), (4, ">Q"), (12, ">Q"), (20, ">Q")][field]
        os.pwrite(image.fileno(), struct.pack(kind, value), start + offset)
    with pytest.raises(ImageInvalid, match=words):
        verify(path)


def test_a_bit_beyond_the_last_page_is_refused(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", 60)])
    block = verify(path).head.ram_blocks[0]
    with path.open("r+b") as image:
        os.pwrite(image.fileno(), b"\x10", block.bitmap_offset_bytes + 7)
    with pytest.raises(ImageInvalid, match="marks page 60, but the block has 60"):
        verify(path)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"QEVM" + struct.pack(">I", 4), "stream version 4"),
        (configuration("pc", ("mapped-ram",)) + b"\x08", "section type 0x08"),
        (
            configuration("pc", ()) + b"\x01" + struct.pack(">I", 1) + text("dirty-bitmap"),
            "section dirty-bitmap stands before the RAM",
        ),
        (
            configuration("pc", ())[: -0 or None] + b"\x05" + text("configuration/new") + bytes(4),
            "configuration/new is unknown",
        ),
        (
            configuration("pc", ()) + ram_start(PAGE) + text("a") + struct.pack(">Q", 2 * PAGE),
            "does not fit",
        ),
        (configuration("pc", ()) + ram_start(PAGE) + text("a") + bytes(8), "does not fit"),
        (b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 1 << 30), "claims a length"),
        (b"not a stream at all", "no QEMU stream"),
    ],
)
def test_a_stream_that_cannot_be_followed_is_refused_in_words(tmp_path, stream, words):
    with pytest.raises(ImageInvalid, match=words):
        verify(write_stream(tmp_path / "image", stream))


@settings(max_examples=150)
@given(st.data())
def test_an_image_with_any_byte_changed_or_any_tail_cut_is_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "image"
    prefix = libvirt_prefix(padding_bytes=10)
    write_mapped(path, [Block("pc.ram", 4, {1: FULL_PAGE})], prefix=prefix)
    size = path.stat().st_size
    metadata = [*range(0, 400), *range(size - 200, size)]
    if data.draw(st.booleans()):
        os.truncate(path, data.draw(st.integers(0, size)))
    else:
        with path.open("r+b") as image:
            position = data.draw(st.sampled_from(metadata))
            (byte,) = os.pread(image.fileno(), 1, position)
            flipped = byte ^ data.draw(st.integers(1, 255))
            os.pwrite(image.fileno(), bytes([flipped]), position)
    with contextlib.suppress(ImageInvalid):
        verify(path)


def test_a_64_gib_memory_map_needs_no_memory_of_that_size(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [Block("pc.ram", (64 << 30) // PAGE, {0: FULL_PAGE, 16777215: FULL_PAGE})])
    structure = verify(path)
    assert (structure.present_pages, structure.zero_pages) == (2, 16777214)
    assert structure.allocated_bytes < 16 * MIB


def test_blocks_are_read_from_the_offsets_they_name(tmp_path):
    path = tmp_path / "image"
    write_mapped(path, [Block("a", 3), Block("b", 5)])
    with opened(path) as fd:
        head = read_stream_head(fd, str(path), len(libvirt_prefix()), path.stat().st_size)
    first, second = (vars(block) for block in head.ram_blocks)
    first_end = first["pages_offset_bytes"] + first["used_length_bytes"]
    assert first["pages_offset_bytes"] % MIB == 0
    assert second["bitmap_offset_bytes"] > first_end
    assert head.end_bytes == second["pages_offset_bytes"] + second["used_length_bytes"]


def test_a_header_that_points_into_the_stream_is_no_image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(header(data_length=40) + bytes(60) + sequential_stream())
    with pytest.raises(ImageInvalid, match="no QEMU stream"):
        verify(path)
