# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Everything before QEMU's stream: header, domain XML, cookie, padding, our record and life block.

    0            header, 92 bytes
    92           XML NUL [cookie NUL]
    ...          zeros, 64 KiB as libvirt gives, room for save-image-define to grow the XML
    aligned      record block (see _record.py), in a room planned at save time
    end - 4096   life block, within one sector (see _life.py)
    end          the stream; the end is a multiple of 4096

An image that libvirt wrote has no such room; its life block goes into the last whole sector of
its padding.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, replace

from .._errors import ImageInvalid
from ._header import HEADER_BYTES, SaveHeader, parse_header
from ._record import LIFE_TAG, RECORD_TAG, TAG_BYTES, pack_block, unpack_block

ALIGNMENT_BYTES = 4096
SECTOR_BYTES = 512
LIBVIRT_PADDING_BYTES = 64 << 10
MAX_DATA_AREA_BYTES = 64 << 20


@dataclass(frozen=True)
class PrefixLayout:
    """File offsets in bytes, but ``cookie_offset_bytes``, which counts from the header's end as the
    header field does (0: no cookie)."""

    cookie_offset_bytes: int
    record_offset_bytes: int
    record_capacity_bytes: int
    life_offset_bytes: int
    data_offset_bytes: int


@dataclass(frozen=True)
class Prefix:
    """What a reader found. ``life`` and ``record`` are payloads, None without a sound block;
    ``life_offset_bytes`` is where the life block is or may be written, None without room."""

    header: SaveHeader
    xml: str
    cookie: str | None
    record: dict[str, t.Any] | None
    life: dict[str, t.Any] | None
    life_offset_bytes: int | None
    file_bytes: int


def _align_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def plan_prefix(xml: str, cookie: str | None, record_capacity_bytes: int) -> PrefixLayout:
    """Lay out a new image: ``record_capacity_bytes`` is rounded up to whole pages."""
    xml_bytes = len(xml.encode("utf-8")) + 1
    text_end = HEADER_BYTES + xml_bytes
    if cookie is not None:
        text_end += len(cookie.encode("utf-8")) + 1
    record = _align_up(text_end + LIBVIRT_PADDING_BYTES, ALIGNMENT_BYTES)
    life = record + _align_up(record_capacity_bytes, ALIGNMENT_BYTES)
    return PrefixLayout(
        cookie_offset_bytes=0 if cookie is None else xml_bytes,
        record_offset_bytes=record,
        record_capacity_bytes=life - record,
        life_offset_bytes=life,
        data_offset_bytes=life + ALIGNMENT_BYTES,
    )


def build_prefix(
    layout: PrefixLayout,
    header: SaveHeader,
    xml: str,
    cookie: str | None,
    record: t.Mapping[str, t.Any],
    life: t.Mapping[str, t.Any],
) -> bytes:
    """All bytes before the stream; the header's length and cookie offset come from ``layout``.

    Raises ValueError when the record outgrew the room planned for it, or the life block its sector.
    """
    record_block, life_block = pack_block(RECORD_TAG, record), pack_block(LIFE_TAG, life)
    if len(record_block) > layout.record_capacity_bytes or len(life_block) > SECTOR_BYTES:
        raise ValueError(
            f"a record of {len(record_block)} and a life block of {len(life_block)} bytes do not "
            f"fit into {layout.record_capacity_bytes} and {SECTOR_BYTES}"
        )
    placed = replace(
        header,
        data_length_bytes=layout.data_offset_bytes - HEADER_BYTES,
        cookie_offset_bytes=layout.cookie_offset_bytes,
    )
    text = xml.encode("utf-8") + b"\0"
    if cookie is not None:
        text += cookie.encode("utf-8") + b"\0"
    data = bytearray(layout.data_offset_bytes)
    data[:HEADER_BYTES] = placed.pack()
    data[HEADER_BYTES : HEADER_BYTES + len(text)] = text
    start = layout.record_offset_bytes
    data[start : start + len(record_block)] = record_block
    start = layout.life_offset_bytes
    data[start : start + len(life_block)] = life_block
    return bytes(data)


def relabelled(prefix: bytes, life: t.Mapping[str, t.Any]) -> bytes:
    """The same beginning of an image with another life block. ``prefix`` ends where the stream
    begins."""
    block = pack_block(LIFE_TAG, life)
    if len(block) > SECTOR_BYTES:
        raise ValueError(f"a life block of {len(block)} bytes does not fit into a sector")
    start = len(prefix) - ALIGNMENT_BYTES
    return prefix[:start] + block.ljust(ALIGNMENT_BYTES, b"\0")


def record_in(prefix: bytes) -> dict[str, t.Any] | None:
    """The record in the beginning of an image; None without a sound one."""
    start = _record_offset(prefix, 0)
    return None if start is None else unpack_block(RECORD_TAG, prefix[start:])


def with_record(prefix: bytes, record: t.Mapping[str, t.Any]) -> bytes:
    """The same beginning of an image with another record, in the room that was planned for it.

    Raises `ValueError` when there is no record, or not enough room.
    """
    start = _record_offset(prefix, 0)
    end = len(prefix) - ALIGNMENT_BYTES
    block = pack_block(RECORD_TAG, record)
    if start is None or len(block) > end - start:
        raise ValueError(f"a record of {len(block)} bytes does not fit between {start} and {end}")
    return prefix[:start] + block.ljust(end - start, b"\0") + prefix[end:]


def _text(area: bytes, start: int, end: int, what: str, path: str) -> tuple[str, int]:
    """The NUL-terminated text in ``area[start:end]`` and the offset behind it."""
    stop = area.find(b"\0", start, end)
    if stop < 0:
        stop = end
    try:
        return area[start:stop].decode("utf-8"), min(stop + 1, end)
    except UnicodeDecodeError as exc:
        raise ImageInvalid(
            path, HEADER_BYTES + start + exc.start, f"the {what} is not UTF-8"
        ) from exc


def _record_offset(start_of_file: bytes, text_end: int) -> int | None:
    for start in range(_align_up(text_end, ALIGNMENT_BYTES), len(start_of_file), ALIGNMENT_BYTES):
        if start_of_file[start : start + TAG_BYTES] == RECORD_TAG:
            return start
    return None


def _find_record(area: bytes, text_end: int) -> dict[str, t.Any] | None:
    start = _record_offset(bytes(HEADER_BYTES) + area, HEADER_BYTES + text_end)
    return None if start is None else unpack_block(RECORD_TAG, area[start - HEADER_BYTES :])


def _life_room(area: bytes, text_end: int, data_offset: int) -> int | None:
    """File offset of the life block: on the last page of our padding, else, in libvirt's, on the
    last whole sector that is free."""
    offset = data_offset - ALIGNMENT_BYTES
    if data_offset % ALIGNMENT_BYTES:
        offset = (data_offset - SECTOR_BYTES) // SECTOR_BYTES * SECTOR_BYTES
    start = offset - HEADER_BYTES
    sector = area[max(start, 0) : start + SECTOR_BYTES]
    free = not any(sector) or sector[:TAG_BYTES] == LIFE_TAG
    return offset if start >= text_end and free else None


def read_prefix(fd: int, path: str) -> Prefix:
    """Read and check everything before the stream; positions are never moved.

    Every length is bounded by the file and by MAX_DATA_AREA_BYTES. Raises `NotASaveImage` and
    `ImageInvalid`.
    """
    header = parse_header(os.pread(fd, HEADER_BYTES, 0), path)
    file_bytes = os.fstat(fd).st_size
    length = header.data_length_bytes
    if header.data_offset_bytes > file_bytes or length > MAX_DATA_AREA_BYTES:
        raise ImageInvalid(
            path,
            20,
            f"the XML area claims {length} bytes; the file has {file_bytes}, and at most "
            f"{MAX_DATA_AREA_BYTES} are believed",
        )
    area = os.pread(fd, length, HEADER_BYTES)
    if len(area) != length:
        raise ImageInvalid(path, HEADER_BYTES + len(area), "the file ended while it was read")
    xml_end = header.cookie_offset_bytes or length
    xml, text_end = _text(area, 0, xml_end, "domain XML", path)
    cookie = None
    if header.cookie_offset_bytes:
        cookie, text_end = _text(area, header.cookie_offset_bytes, length, "cookie", path)
    room = _life_room(area, text_end, header.data_offset_bytes)
    life = None
    if room is not None:
        life = unpack_block(LIFE_TAG, area[room - HEADER_BYTES :])
    return Prefix(
        header=header,
        xml=xml,
        cookie=cookie,
        record=_find_record(area, text_end),
        life=life,
        life_offset_bytes=room,
        file_bytes=file_bytes,
    )
