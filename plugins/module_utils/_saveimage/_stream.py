# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The head of QEMU's stream: configuration section and the list of RAM blocks.

Mapped-ram is recognised here, from the capabilities that the stream itself names, and not from
libvirt's header: a format of sparse may stand before a plain stream (spec/libvirt.md T10).
Source: QEMU migration/savevm.c, migration/ram.c; spec/qemu.md 1.1 to 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._errors import ImageInvalid
from ._reader import StreamReader

MAPPED_RAM = "mapped-ram"
SEQUENTIAL = "sequential"
COMPRESSED = "compressed"
UNKNOWN = "unknown"

_STREAM_MAGIC = b"QEVM"
_STREAM_VERSION = 3
_SECTION_START, _CONFIGURATION, _SUBSECTION = 0x01, 0x07, 0x05
_RAM_VERSION = 4
_MEM_SIZE_FLAG = 0x04
_MAPPED_VERSION = 1
_MOST_CAPABILITIES, _MOST_BLOCKS = 64, 4096
_LARGEST_PAGE_BYTES = 1 << 30

# First bytes of what the compressors write (file(1) magic).
_COMPRESSORS: tuple[tuple[str, bytes], ...] = (
    ("gzip", b"\x1f\x8b"),
    ("bzip2", b"BZh"),
    ("xz", b"\xfd7zXZ\x00"),
    ("lzop", b"\x89LZO\x00\r\n\x1a\n"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
)


@dataclass(frozen=True)
class RamBlock:
    """One RAM block; the last four fields are None in a sequential stream. Offsets are absolute
    file offsets in bytes."""

    name: str
    used_length_bytes: int
    page_size_bytes: int | None = None
    bitmap_offset_bytes: int | None = None
    bitmap_bytes: int | None = None
    pages_offset_bytes: int | None = None

    @property
    def page_count(self) -> int:
        """Pages in the block; 0 where the stream does not say how large a page is."""
        return self.used_length_bytes // self.page_size_bytes if self.page_size_bytes else 0


@dataclass(frozen=True)
class StreamHead:
    """``layout``: mapped-ram, sequential, compressed or unknown; a compressed or unknown stream is
    read no further. ``end_bytes``: file offset behind the RAM block list, where sections go on."""

    layout: str
    machine: str | None = None
    capabilities: tuple[str, ...] = ()
    target_page_bits: int | None = None
    uuid: str | None = None
    ram_blocks: tuple[RamBlock, ...] = ()
    compressor: str | None = None
    end_bytes: int = 0

    @property
    def ram_bytes(self) -> int:
        return sum(block.used_length_bytes for block in self.ram_blocks)


def read_stream_head(fd: int, path: str, offset_bytes: int, file_bytes: int) -> StreamHead:
    """Read the stream that starts at ``offset_bytes``.

    Work grows with the number of RAM blocks. Raises `ImageInvalid` for lengths and offsets that
    the file cannot hold, blocks that overlap, and sections that stand before the RAM.
    """
    reader = StreamReader(fd, path, offset_bytes)
    start = reader.peek(16)
    if not start.startswith(_STREAM_MAGIC):
        for compressor, magic in _COMPRESSORS:
            if start.startswith(magic):
                return StreamHead(COMPRESSED, compressor=compressor)
        return StreamHead(UNKNOWN)
    reader.take(4, "the stream's magic")
    version = reader.number(4, "the stream's version")
    if version != _STREAM_VERSION:
        raise reader.invalid(f"stream version {version} is unknown")
    machine, facts = _read_configuration(reader)
    layout = MAPPED_RAM if "mapped-ram" in facts.capabilities else SEQUENTIAL
    blocks = _read_ram_section(reader, file_bytes, layout, facts)
    return StreamHead(
        layout=layout,
        machine=machine,
        capabilities=facts.capabilities,
        target_page_bits=facts.target_page_bits,
        uuid=facts.uuid,
        ram_blocks=blocks,
        end_bytes=reader.offset_bytes,
    )


@dataclass
class _Configuration:
    capabilities: tuple[str, ...] = ()
    target_page_bits: int | None = None
    uuid: str | None = None


def _read_configuration(reader: StreamReader) -> tuple[str | None, _Configuration]:
    facts = _Configuration()
    if reader.peek(1) != bytes([_CONFIGURATION]):
        return None, facts  # machines without one are older than mapped-ram
    reader.take(1, "the configuration section")
    machine = reader.string("the machine type", length_bytes=4)
    while reader.peek(1) == bytes([_SUBSECTION]):
        reader.take(1, "a configuration subsection")
        name = reader.string("the name of a configuration subsection")
        reader.number(4, f"the version of {name}")
        if name == "configuration/capabilities":
            facts.capabilities = _read_capabilities(reader)
        elif name == "configuration/target-page-bits":
            facts.target_page_bits = reader.number(4, name)
        elif name == "configuration/uuid":
            data = reader.take(16, name).hex()
            facts.uuid = "-".join((data[:8], data[8:12], data[12:16], data[16:20], data[20:]))
        else:
            raise reader.invalid(f"configuration subsection {name} is unknown")
    return machine, facts


def _read_capabilities(reader: StreamReader) -> tuple[str, ...]:
    count = reader.number(4, "the number of capabilities")
    if count > _MOST_CAPABILITIES:
        raise reader.invalid(f"{count} capabilities are claimed")
    return tuple(reader.string("a capability") for _number in range(count))


def _read_ram_section(
    reader: StreamReader, file_bytes: int, layout: str, facts: _Configuration
) -> tuple[RamBlock, ...]:
    kind = reader.number(1, "the first section")
    if kind != _SECTION_START:
        raise reader.invalid(f"section type {kind:#04x} stands where the RAM section should start")
    reader.number(4, "the section's id")
    name = reader.string("the section's name")
    if name != "ram":
        raise reader.invalid(f"section {name} stands before the RAM and cannot be skipped")
    reader.number(4, "the RAM section's instance")
    version = reader.number(4, "the RAM section's version")
    if version != _RAM_VERSION:
        raise reader.invalid(f"RAM section version {version} is unknown")
    word = reader.number(8, "the total RAM size")
    if not word & _MEM_SIZE_FLAG:
        raise reader.invalid("the RAM section does not begin with a list of RAM blocks")
    total = word & ~_MEM_SIZE_FLAG
    blocks: list[RamBlock] = []
    while total > 0:
        if len(blocks) == _MOST_BLOCKS:
            raise reader.invalid(f"more than {_MOST_BLOCKS} RAM blocks are claimed")
        block = _read_block(reader, file_bytes, layout, facts)
        if not 0 < block.used_length_bytes <= total:
            raise reader.invalid(
                f"RAM block {block.name} of {block.used_length_bytes} bytes does not fit into the "
                f"{total} bytes left of the total"
            )
        total -= block.used_length_bytes
        blocks.append(block)
    return tuple(blocks)


def _read_block(
    reader: StreamReader, file_bytes: int, layout: str, facts: _Configuration
) -> RamBlock:
    name = reader.string("the name of a RAM block")
    used = reader.number(8, f"the length of RAM block {name}")
    if "x-ignore-shared" in facts.capabilities:
        reader.number(8, f"the guest address of RAM block {name}")
    if layout != MAPPED_RAM:
        return RamBlock(name, used)
    return _read_mapped_block(reader, file_bytes, name, used)


def _read_mapped_block(
    reader: StreamReader, file_bytes: int, name: str, used_bytes: int
) -> RamBlock:
    version = reader.number(4, f"the mapped-ram header of {name}")
    if version != _MAPPED_VERSION:
        raise reader.invalid(f"the mapped-ram header of {name} has version {version}")
    page = reader.number(8, f"the page size of {name}")
    bitmap = reader.number(8, f"the bitmap offset of {name}")
    pages = reader.number(8, f"the pages offset of {name}")
    if page & (page - 1) or not 0 < page <= _LARGEST_PAGE_BYTES or used_bytes % page:
        raise reader.invalid(f"RAM block {name} of {used_bytes} bytes claims pages of {page} bytes")
    bitmap_bytes = -(-(used_bytes // page) // 64) * 8
    if bitmap < reader.offset_bytes or pages < bitmap + bitmap_bytes:
        raise reader.invalid(
            f"RAM block {name} claims a bitmap at {bitmap} and pages at {pages}, which overlap "
            "what stands before them"
        )
    if pages % page:
        raise reader.invalid(f"the pages of RAM block {name} at {pages} are not aligned to {page}")
    end = pages + used_bytes
    if end > file_bytes:
        raise ImageInvalid(
            reader.path,
            file_bytes,
            f"truncated: RAM block {name} reaches to {end}, the file ends at {file_bytes}",
        )
    reader.offset_bytes = end
    return RamBlock(name, used_bytes, page, bitmap, bitmap_bytes, pages)
