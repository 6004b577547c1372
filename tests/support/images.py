# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Synthetic save images: any header, any layout, either byte order, damaged on request.

Written from the description of the formats (QEMU migration/, libvirt qemu_saveimage.h), not from
the readers under test, so that a misreading there is not repeated here.
"""

from __future__ import annotations

import json
import struct
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096
MIB = 1 << 20
DEVICES = ("timer", "cpu", "ram-less-device")


@dataclass
class Block:
    """One RAM block: its size in pages, and what the present pages hold."""

    name: str = "pc.ram"
    page_count: int = 64
    pages: dict[int, bytes] = field(default_factory=dict)


def text(value: str) -> bytes:
    """A string of the stream: u8 length and the bytes."""
    data = value.encode()
    return struct.pack(">B", len(data)) + data


def configuration(machine: str, capabilities: t.Sequence[str]) -> bytes:
    """Magic, version and the configuration section."""
    name = machine.encode()
    data = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", len(name)) + name
    if capabilities:
        data += b"\x05" + text("configuration/capabilities") + struct.pack(">I", 1)
        data += struct.pack(">I", len(capabilities))
        data += b"".join(text(capability) for capability in capabilities)
    return data


def ram_start(total_bytes: int) -> bytes:
    """The RAM section up to its list of blocks."""
    head = b"\x01" + struct.pack(">I", 2) + text("ram") + struct.pack(">II", 0, 4)
    return head + struct.pack(">Q", total_bytes | 4)


def tail(devices: t.Sequence[str] = DEVICES) -> bytes:
    """End of the RAM section, some device state, end marker and device description."""
    end = struct.pack(">Q", 0x10) + b"\x7e" + struct.pack(">I", 2) + b"\x04opaque device state"
    described = {"page_size": PAGE, "devices": [{"name": name} for name in devices]}
    description = json.dumps(described).encode()
    return end + b"\x00\x06" + struct.pack(">I", len(description)) + description


def bitmap(block: Block, byte_order: str) -> bytes:
    """Words of 64 bits in the writer's byte order, one bit a page."""
    words = [0] * -(-block.page_count // 64)
    for page in block.pages:
        words[page // 64] |= 1 << page % 64
    return struct.pack(("<" if byte_order == "little" else ">") + f"{len(words)}Q", *words)


def header(
    *,
    data_length: int,
    version: int = 2,
    image_format: int = 6,
    byte_order: str = "little",
    complete: bool = True,
    was_running: int = 1,
    cookie_offset: int = 0,
    features: int = 0,
) -> bytes:
    """The 92 bytes as libvirt lays them out."""
    magic = b"LibvirtQemudSave" if complete else b"LibvirtQemudPart"
    fields = (version, data_length, was_running, image_format, cookie_offset, features)
    return magic + struct.pack((">" if byte_order == "big" else "<") + "6I52x", *fields)


def libvirt_prefix(
    xml: str = "<domain><name>guest</name></domain>",
    cookie: str | None = None,
    padding_bytes: int = 65536,
    **fields: t.Any,
) -> bytes:
    """Everything before the stream as libvirt writes it: XML, cookie, zeros, no alignment."""
    area = xml.encode() + b"\0"
    if cookie is not None:
        fields["cookie_offset"] = len(area)
        area += cookie.encode() + b"\0"
    area += bytes(padding_bytes)
    return header(data_length=len(area), **fields) + area


def write_mapped(
    path: Path,
    blocks: t.Sequence[Block],
    *,
    prefix: bytes | None = None,
    byte_order: str = "little",
    machine: str = "pc-i440fx-10.0",
    capabilities: t.Sequence[str] = ("mapped-ram",),
) -> None:
    """A whole mapped-ram image; pages that are not given are holes."""
    start = libvirt_prefix(byte_order=byte_order) if prefix is None else prefix
    total = sum(block.page_count * PAGE for block in blocks)
    with path.open("wb") as image:
        image.write(start + configuration(machine, capabilities) + ram_start(total))
        for block in blocks:
            size = block.page_count * PAGE
            bits = bitmap(block, byte_order)
            image.write(text(block.name) + struct.pack(">Q", size))
            bitmap_offset = image.tell() + 28
            pages_offset = -(-(bitmap_offset + len(bits)) // MIB) * MIB
            image.write(struct.pack(">IQQQ", 1, PAGE, bitmap_offset, pages_offset) + bits)
            for page, content in sorted(block.pages.items()):
                image.seek(pages_offset + page * PAGE)
                image.write(content)
            image.seek(pages_offset + size)
        image.write(tail())


def sequential_stream(
    blocks: t.Sequence[Block] = (Block(),), machine: str = "pc-i440fx-10.0"
) -> bytes:
    """A plain stream; of the page records only the end of the list is there."""
    total = sum(block.page_count * PAGE for block in blocks)
    listed = b"".join(text(b.name) + struct.pack(">Q", b.page_count * PAGE) for b in blocks)
    return configuration(machine, ()) + ram_start(total) + listed + tail()
