# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Reading big-endian fields from a file, never past its end.

QEMU's stream is big-endian throughout; strings are a u8 length and that many bytes
(spec/qemu.md 1).
"""

from __future__ import annotations

import os

from .._errors import ImageInvalid

_WINDOW_BYTES = 64 << 10


class StreamReader:
    """A position in a file. Every read raises `ImageInvalid`, with the offset, where bytes miss."""

    def __init__(self, fd: int, path: str, offset_bytes: int) -> None:
        self._fd = fd
        self.path = path
        self._window = b""
        self._window_start = 0
        self.offset_bytes = offset_bytes

    def peek(self, count: int) -> bytes:
        """Up to ``count`` bytes (at most 64 KiB) without moving on; fewer at the file's end."""
        start = self.offset_bytes - self._window_start
        if start < 0 or start + count > len(self._window):
            self._window = os.pread(self._fd, _WINDOW_BYTES, self.offset_bytes)
            self._window_start, start = self.offset_bytes, 0
        return self._window[start : start + count]

    def take(self, count: int, what: str) -> bytes:
        data = self.peek(count)
        if len(data) < count:
            raise self.invalid(f"the file ends within {what}")
        self.offset_bytes += count
        return data

    def number(self, count: int, what: str) -> int:
        """An unsigned big-endian integer of ``count`` bytes."""
        return int.from_bytes(self.take(count, what), "big")

    def string(self, what: str, length_bytes: int = 1) -> str:
        length = self.number(length_bytes, what)
        if length > 255:
            raise self.invalid(f"{what} claims a length of {length} bytes")
        data = self.take(length, what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise self.invalid(f"{what} is not text") from exc

    def invalid(self, reason: str) -> ImageInvalid:
        """The error for what lies at this position."""
        return ImageInvalid(self.path, self.offset_bytes, reason)
