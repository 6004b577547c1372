# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Blocks of our own data in an image's padding.

A block is a 16-byte tag, the length of its JSON (u32, little-endian), the JSON's SHA-256 and the
JSON. libvirt ignores the padding; its save-image-define wipes it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import typing as t

TAG_BYTES = 16
RECORD_TAG = b"VMFLEET-RECORD\0\0"
LIFE_TAG = b"VMFLEET-LIFE\0\0\0\0"
PREAMBLE_BYTES = TAG_BYTES + 4 + 32


def pack_block(tag: bytes, payload: t.Mapping[str, t.Any]) -> bytes:
    """The block's bytes; the same payload always gives the same bytes."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("utf-8")
    return tag + struct.pack("<I", len(text)) + hashlib.sha256(text).digest() + text


def unpack_block(tag: bytes, data: bytes) -> dict[str, t.Any] | None:
    """The payload of the block at the start of ``data``.

    None when there is no such block, or one that is cut short or does not match its hash: a
    damaged record is a missing record, and what needs it says so.
    """
    if data[:TAG_BYTES] != tag or len(data) < PREAMBLE_BYTES:
        return None
    length = int.from_bytes(data[TAG_BYTES : TAG_BYTES + 4], "little")
    digest = data[TAG_BYTES + 4 : PREAMBLE_BYTES]
    text = data[PREAMBLE_BYTES : PREAMBLE_BYTES + length]
    if len(text) != length or hashlib.sha256(text).digest() != digest:
        return None
    try:
        payload = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None
