# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A record in an image that libvirt wrote: in its padding, which libvirt neither reads nor, unless
the description is edited, writes again."""

from __future__ import annotations

import errno
import os
import typing as t

from .._errors import StoreError
from ._header import HEADER_BYTES
from ._prefix import ALIGNMENT_BYTES, Prefix, read_prefix
from ._record import RECORD_TAG, pack_block


def add_record(fd: int, path: str, record: t.Mapping[str, t.Any]) -> bool:
    """Write it as near to the end of the padding as it fits; False without room.

    ``fd`` is open for writing and locked by the caller, who flushes it. Raises `StoreError`.
    """
    prefix = read_prefix(fd, path)
    if prefix.life_offset_bytes is None:
        return False
    block = pack_block(RECORD_TAG, record)
    start = (prefix.life_offset_bytes - len(block)) // ALIGNMENT_BYTES * ALIGNMENT_BYTES
    if start < _text_end(prefix):
        return False
    try:
        written = os.pwrite(fd, block, start)
        if written != len(block):
            raise OSError(errno.EIO, f"only {written} of {len(block)} bytes were written")
    except OSError as exc:
        raise StoreError(
            f"{path}: writing the record at offset {start} failed: {exc.strerror}.",
            path=path,
            offset_bytes=start,
        ) from exc
    return True


def _text_end(prefix: Prefix) -> int:
    text_bytes = len(prefix.xml.encode("utf-8")) + 1
    if prefix.cookie is not None:
        text_bytes = prefix.header.cookie_offset_bytes + len(prefix.cookie.encode("utf-8")) + 1
    return HEADER_BYTES + text_bytes
