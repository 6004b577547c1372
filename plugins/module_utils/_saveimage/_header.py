# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The 92 bytes at the start of a save image.

Source: libvirt src/qemu/qemu_saveimage.h, spec/libvirt.md 1.1 (versions 1 and 2) and 1.7
(version 3, whose ``features`` word is the first word that version 2 left unused).
"""

from __future__ import annotations

import enum
import struct
import sys
from dataclasses import dataclass

from .._errors import ImageInvalid, NotASaveImage

HEADER_BYTES = 92
MAGIC_COMPLETE = b"LibvirtQemudSave"
MAGIC_PARTIAL = b"LibvirtQemudPart"
MAGIC_BYTES = 16
FEATURE_MAPPED_RAM = 1

_KNOWN_FEATURES = FEATURE_MAPPED_RAM
_NEWEST_VERSION = 3
_FIELDS = "6I52x"
_STRUCT = {"little": "<16s" + _FIELDS, "big": ">16s" + _FIELDS}
_OFFSET = {"version": 16, "data_length": 20, "format": 28, "cookie": 32, "features": 36}


class ImageFormat(enum.IntEnum):
    """The on-disk numbers of libvirt's enum; never reused."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6

    @property
    def label(self) -> str:
        """The name that qemu.conf and the modules use."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> ImageFormat:
        return cls[label.upper()]


@dataclass(frozen=True)
class SaveHeader:
    """``complete``: which magic. Lengths and offsets are bytes; ``cookie_offset_bytes`` counts from
    the end of the header, 0 is no cookie. ``byte_order``: ``little`` or ``big``, the writer's."""

    complete: bool
    version: int
    data_length_bytes: int
    was_running: bool
    image_format: ImageFormat
    cookie_offset_bytes: int = 0
    features: int = 0
    byte_order: str = sys.byteorder

    @property
    def data_offset_bytes(self) -> int:
        """Where QEMU's stream starts in the file."""
        return HEADER_BYTES + self.data_length_bytes

    def pack(self) -> bytes:
        """The 92 bytes; only versions 2 and 3 are written."""
        if self.version not in (2, 3):
            raise ValueError(f"header version {self.version} is read, never written")
        return struct.pack(
            _STRUCT[self.byte_order],
            MAGIC_COMPLETE if self.complete else MAGIC_PARTIAL,
            self.version,
            self.data_length_bytes,
            int(self.was_running),
            int(self.image_format),
            self.cookie_offset_bytes,
            self.features,
        )


def _byte_order(data: bytes) -> str:
    # As libvirt decides it: by the version field alone, swapped when it is too large.
    little = int.from_bytes(data[16:20], "little")
    return "little" if little <= _NEWEST_VERSION else "big"


def parse_header(data: bytes, path: str) -> SaveHeader:
    """Read versions 1, 2 and 3 in either byte order.

    Raises `NotASaveImage` for any other magic, `ImageInvalid` naming the offset and the number
    of the first field that no reader could follow.
    """
    if data[:MAGIC_BYTES] not in (MAGIC_COMPLETE, MAGIC_PARTIAL):
        raise NotASaveImage(path, 0, "not a save image: it does not start with a save magic")
    if len(data) < HEADER_BYTES:
        raise ImageInvalid(
            path, len(data), f"the header ends after {len(data)} of {HEADER_BYTES} bytes"
        )
    order = _byte_order(data)
    fields = struct.unpack(_STRUCT[order], data[:HEADER_BYTES])
    magic, version, data_length, was_running, image_format, cookie, features = fields
    if not 1 <= version <= _NEWEST_VERSION:
        shown = int.from_bytes(data[16:20], "little")
        raise ImageInvalid(path, _OFFSET["version"], f"save header version {shown} is unknown")
    if data_length == 0:
        raise ImageInvalid(path, _OFFSET["data_length"], "the length of the XML area is 0")
    if image_format not in set(ImageFormat):
        raise ImageInvalid(path, _OFFSET["format"], f"image format {image_format} is unknown")
    if cookie >= data_length:
        raise ImageInvalid(
            path,
            _OFFSET["cookie"],
            f"the cookie lies at {cookie} of an XML area of {data_length} bytes",
        )
    if version < 3:
        features = 0  # an unused word there; libvirt ignores what it holds
    elif image_format != ImageFormat.RAW:
        raise ImageInvalid(
            path, _OFFSET["format"], f"a version 3 image has format {image_format} instead of 0"
        )
    unknown = [str(bit) for bit in range(32) if features & ~_KNOWN_FEATURES & (1 << bit)]
    if unknown:
        raise ImageInvalid(
            path, _OFFSET["features"], f"feature bits {', '.join(unknown)} are unknown"
        )
    return SaveHeader(
        complete=magic == MAGIC_COMPLETE,
        version=version,
        data_length_bytes=data_length,
        was_running=bool(was_running),
        image_format=ImageFormat(image_format),
        cookie_offset_bytes=cookie,
        features=features,
        byte_order=order,
    )


def feature_names(features: int) -> list[str]:
    """Names of the feature bits that are set."""
    return ["mapped-ram"] if features & FEATURE_MAPPED_RAM else []
