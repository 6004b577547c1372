# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of QEMU's stream: layout, machine, RAM blocks, and what is refused there."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import ImageInvalid
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._stream import (
    RamBlock,
    read_stream_head,
)
from ansible_collections.vmfleet.suspend.tests.support.images import (
    MIB,
    PAGE,
    Block,
    configuration,
    ram_start,
    sequential_stream,
    tail,
    text,
    write_mapped,
)

MAPPED = ("mapped-ram",)
START = 5000  # where the stream lies in the file: nothing in it may count from there


def head_of(tmp_path, stream, size=None):
    """Read ``stream`` from the middle of a file, which is ``size`` bytes long if given."""
    path = tmp_path / "image"
    path.write_bytes(b"?" * START + stream)
    if size is not None:
        os.truncate(path, size)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_stream_head(fd, str(path), START, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def subsection(name, body):
    return b"\x05" + text(name) + struct.pack(">I", 1) + body


def mapped_block(
    *, name="pc.ram", used=16 * PAGE, version=1, page=PAGE, bitmap=None, pages=MIB, first=True
):
    """A mapped-ram stream up to its one block; the bitmap stands right behind unless told."""
    start = configuration("pc", MAPPED) + ram_start(used) if first else b""
    listed = start + text(name) + struct.pack(">Q", used)
    if bitmap is None:
        bitmap = START + len(listed) + 28
    return listed + struct.pack(">IQQQ", version, page, bitmap, pages)


def test_a_mapped_ram_stream_tells_machine_and_where_every_block_lies(tmp_path):
    path = tmp_path / "image"
    prefix = b"\0" * 5000
    write_mapped(path, [Block("pc.ram", 100), Block("0000:00:01.0/vm0", 3)], prefix=prefix)
    with path.open("rb") as image:
        head = read_stream_head(image.fileno(), str(path), 5000, path.stat().st_size)
    assert (head.layout, head.machine, head.compressor) == ("mapped-ram", "pc-i440fx-10.0", None)
    assert head.capabilities == MAPPED
    assert head.ram_bytes == 103 * PAGE
    ram, video = head.ram_blocks
    assert (ram.name, ram.used_length_bytes, ram.page_count) == ("pc.ram", 100 * PAGE, 100)
    assert (ram.pages_offset_bytes, ram.bitmap_bytes) == (MIB, 16)
    assert (video.name, video.page_size_bytes, video.bitmap_bytes) == ("0000:00:01.0/vm0", PAGE, 8)
    # The second block's header follows the first one's pages at once.
    assert video.bitmap_offset_bytes == MIB + 100 * PAGE + 1 + len(video.name) + 8 + 28
    assert video.pages_offset_bytes == 2 * MIB
    assert head.end_bytes == 2 * MIB + 3 * PAGE


def test_a_sequential_stream_names_its_blocks_and_their_lengths_only(tmp_path):
    head = head_of(tmp_path, sequential_stream([Block("pc.ram", 16), Block("pc.bios", 2)]))
    assert head.layout == "sequential"
    assert head.ram_blocks == (RamBlock("pc.ram", 16 * PAGE), RamBlock("pc.bios", 2 * PAGE))
    assert head.ram_blocks[0].page_count == 0


def test_the_stream_decides_that_it_is_mapped_ram_not_another_capability(tmp_path):
    stream = configuration("pc", ("x-ignore-shared",)) + ram_start(3 * PAGE)
    stream += text("pc.ram") + struct.pack(">QQ", PAGE, 0x100000000)  # its guest address
    stream += text("pc.bios") + struct.pack(">QQ", 2 * PAGE, 0xFFFC0000) + tail()
    head = head_of(tmp_path, stream)
    assert (head.layout, head.capabilities) == ("sequential", ("x-ignore-shared",))
    assert head.ram_blocks == (RamBlock("pc.ram", PAGE), RamBlock("pc.bios", 2 * PAGE))
    assert head.end_bytes == START + len(stream) - len(tail())


def test_every_configuration_subsection_of_qemu_is_read(tmp_path):
    stream = configuration("virt-10.0", ())
    stream += subsection("configuration/target-page-bits", struct.pack(">I", 12))
    stream += subsection("configuration/capabilities", struct.pack(">I", 1) + text("mapped-ram"))
    stream += subsection("configuration/uuid", bytes(range(16)))
    stream += ram_start(16 * PAGE)
    stream += mapped_block(first=False, bitmap=START + len(stream) + 100)
    head = head_of(tmp_path, stream, size=2 * MIB)
    assert (head.machine, head.target_page_bits) == ("virt-10.0", 12)
    assert head.uuid == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert head.layout == "mapped-ram"


def test_a_stream_without_a_configuration_section_has_no_machine(tmp_path):
    stream = b"QEVM" + struct.pack(">I", 3) + ram_start(PAGE) + text("pc.ram")
    head = head_of(tmp_path, stream + struct.pack(">Q", PAGE) + tail())
    assert (head.layout, head.machine) == ("sequential", None)


@pytest.mark.parametrize(
    ("compressor", "start"),
    [
        ("gzip", gzip.compress(b"QEVM", mtime=0)),
        ("bzip2", bz2.compress(b"QEVM")),
        ("xz", lzma.compress(b"QEVM")),
        ("lzop", b"\x89LZO\x00\r\n\x1a\n"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04"),
    ],
)
def test_a_compressed_stream_is_named_by_its_compressor_and_read_no_further(
    tmp_path, compressor, start
):
    head = head_of(tmp_path, start)
    assert (head.layout, head.compressor, head.ram_blocks) == ("compressed", compressor, ())


@pytest.mark.parametrize("start", [b"", b"QEV", b"\0" * 4096, b"\x7fELF" + b"?" * 100])
def test_anything_else_is_an_unknown_layout(tmp_path, start):
    assert head_of(tmp_path, start).layout == "unknown"


@pytest.mark.parametrize("page", [512, 1024, 8192, 65536, 1 << 21])
def test_any_page_size_that_a_target_has_is_believed(tmp_path, page):
    stream = mapped_block(used=4 * page, page=page, pages=1 << 21)
    (block,) = head_of(tmp_path, stream, size=(1 << 21) + 4 * page).ram_blocks
    assert (block.page_size_bytes, block.page_count) == (page, 4)


@pytest.mark.parametrize(("bitmap", "fits"), [(MIB - 8, True), (MIB - 7, False)])
def test_a_bitmap_may_reach_right_up_to_the_pages(tmp_path, bitmap, fits):
    stream = mapped_block(bitmap=bitmap)
    if fits:
        (block,) = head_of(tmp_path, stream, size=2 * MIB).ram_blocks
        assert block.bitmap_offset_bytes + block.bitmap_bytes == block.pages_offset_bytes
    else:
        with pytest.raises(ImageInvalid, match="overlap"):
            head_of(tmp_path, stream, size=2 * MIB)


SECTION = b"\x01" + struct.pack(">I", 7)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"QEVM" + struct.pack(">I", 2), "stream version 2"),
        (configuration("pc", ()) + SECTION + text("dirty-bitmap"), "section dirty-bitmap stands"),
        (configuration("pc", ()) + b"\x04" + bytes(20), "section type 0x04"),
        (configuration("pc", ()) + subsection("configuration/new", b""), "configuration/new"),
        (configuration("pc", ()) + SECTION + text("ram") + struct.pack(">II", 0, 5), "version 5"),
        (configuration("pc", ["c"] * 65), "65 capabilities"),
        (configuration("m" * 256, ()), "the machine type claims a length of 256"),
        (configuration("pc", ()) + ram_start(0)[:-8] + bytes(8), "list of RAM blocks"),
    ],
)
def test_what_stands_in_the_way_of_the_ram_is_named(tmp_path, stream, words):
    with pytest.raises(ImageInvalid, match=words) as refused:
        head_of(tmp_path, stream + bytes(64))
    assert START < refused.value.offset_bytes <= START + len(stream) + 64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version 2"),
        ({"page": 0}, "pages of 0 bytes"),
        ({"page": 4095}, "pages of 4095 bytes"),
        ({"page": 1 << 31, "used": 1 << 31}, "pages of 2147483648 bytes"),
        ({"used": 16 * PAGE + 512}, "pages of 4096 bytes"),
        ({"bitmap": START}, "overlap"),
        ({"bitmap": MIB, "pages": MIB}, "overlap"),
        ({"pages": START}, "overlap"),
        ({"pages": MIB + 512}, "not aligned"),
        ({"bitmap": (1 << 64) - 8}, "overlap"),
        ({"pages": 2 * MIB - 8 * PAGE}, "truncated: RAM block pc.ram reaches to"),
        ({"pages": (1 << 64) - PAGE}, "truncated"),
        ({"used": 1 << 60}, "overlap"),
    ],
)
def test_a_block_that_cannot_lie_in_the_file_is_refused_with_its_name(tmp_path, changes, words):
    with pytest.raises(ImageInvalid, match=words) as refused:
        head_of(tmp_path, mapped_block(**changes), size=2 * MIB)
    assert "pc.ram" in refused.value.reason


@pytest.mark.parametrize(
    ("total", "lengths"),
    [(3 * PAGE, [2 * PAGE, 2 * PAGE]), (PAGE, [2 * PAGE]), (PAGE, [0]), (PAGE, [1 << 63])],
)
def test_block_lengths_must_add_up_to_the_total(tmp_path, total, lengths):
    listed = b"".join(text(f"ram{n}") + struct.pack(">Q", size) for n, size in enumerate(lengths))
    with pytest.raises(ImageInvalid, match=rf"ram{len(lengths) - 1} of {lengths[-1]} bytes"):
        head_of(tmp_path, configuration("pc", ()) + ram_start(total) + listed + tail())


def test_a_list_that_goes_on_for_ever_is_not_followed(tmp_path):
    listed = (text("r") + struct.pack(">Q", PAGE)) * 5000
    with pytest.raises(ImageInvalid, match="more than 4096 RAM blocks"):
        head_of(tmp_path, configuration("pc", ()) + ram_start(5000 * PAGE) + listed)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_stream_cut_anywhere_in_its_head_is_refused_at_the_cut(tmp_path, mapped):
    stream = mapped_block() if mapped else sequential_stream()[: -len(tail())]
    for length in range(4, len(stream)):
        with pytest.raises(ImageInvalid, match="the file ends within") as refused:
            head_of(tmp_path, stream[:length])
        assert START <= refused.value.offset_bytes <= START + length
