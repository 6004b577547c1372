# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The tail of QEMU's stream: end marker and the description of the device state (VMDESC).

    0x00  end marker
    0x06  u32 length  JSON          the file ends with the JSON's last byte

Source: QEMU migration/savevm.c; spec/qemu.md 1.1.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from .._errors import ImageInvalid

_LONGEST_BYTES = 10 << 20
_FIRST_LOOK_BYTES = 256 << 10
_MARKERS = b"\x00\x06"
_PREAMBLE_BYTES = len(_MARKERS) + 4


@dataclass(frozen=True)
class StreamTail:
    """``start_bytes``: file offset of the end marker; ``devices``: names, in the stream's order."""

    start_bytes: int
    page_size_bytes: int | None
    devices: tuple[str, ...]


def _find_description(tail: bytes) -> int | None:
    """Where the JSON starts. It holds no NUL byte, so the last one lies in front of it."""
    nul = tail.rfind(b"\0")
    # A byte of the length may look like the JSON's first one.
    for start in range(nul + 1, min(nul + 6, len(tail))):
        length = int.from_bytes(tail[start - 4 : start], "big")
        markers = tail[start - _PREAMBLE_BYTES : start - 4]
        fits = start >= _PREAMBLE_BYTES and length == len(tail) - start
        if fits and markers == _MARKERS and tail[start : start + 1] == b"{":
            return start
    return None


def _summary(text: bytes, start_bytes: int) -> StreamTail | None:
    try:
        description = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(description, dict) or not isinstance(description.get("devices"), list):
        return None
    names = [device.get("name") for device in description["devices"] if isinstance(device, dict)]
    page_size = description.get("page_size")
    return StreamTail(
        start_bytes=start_bytes,
        page_size_bytes=page_size if isinstance(page_size, int) else None,
        devices=tuple(name for name in names if isinstance(name, str)),
    )


def read_tail(fd: int, path: str, after_bytes: int, file_bytes: int) -> StreamTail:
    """Read the end of a stream whose earlier parts end at ``after_bytes``.

    Raises `ImageInvalid` unless end marker and description reach exactly to the file's end: the
    file was cut, was never finished, or has something behind it. A stream without description,
    which QEMU writes when the machine property suppress-vmdesc is on, cannot be told from these.
    """
    for limit in (_FIRST_LOOK_BYTES, _LONGEST_BYTES):
        begin = max(after_bytes, file_bytes - limit)
        tail = os.pread(fd, file_bytes - begin, begin)
        start = _find_description(tail)
        if start is not None:
            found = _summary(tail[start:], begin + start - _PREAMBLE_BYTES)
            if found is not None:
                return found
    raise ImageInvalid(
        path,
        file_bytes,
        "the stream's end marker and device description are not at the end of the file: it was "
        "cut short, never finished, something was appended, or it is of a QEMU whose machine had "
        "suppress-vmdesc=on",
    )
