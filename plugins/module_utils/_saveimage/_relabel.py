# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Version 3 and version 2 sparse hold the same stream: one header write makes one the other.

A crash leaves the header as it was or as it should be: all words that differ lie within one
sector, and either form describes the whole image.
"""

from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import replace

from .._errors import ImageInvalid, StoreError
from ._header import FEATURE_MAPPED_RAM, HEADER_BYTES, ImageFormat, parse_header
from ._prefix import read_prefix
from ._stream import MAPPED_RAM, read_stream_head

_F_SETSIG = 10  # linux/fcntl.h; not in Python's fcntl before 3.13


def stamp(fd: int, path: str) -> None:
    """Make a version 2 sparse image one of version 3, unless another process has it open.

    ``fd`` is open for reading and writing, and the only descriptor of this process. Raises
    `StoreError`, with the image as it was.
    """
    _refuse_other_openers(fd, path)
    as_version_3(fd, path)


def as_version_3(fd: int, path: str) -> None:
    """The inverse of `as_sparse`, for who knows that nobody reads it. Raises `StoreError`."""
    _relabel(fd, path, version=3)


def as_sparse(fd: int, path: str) -> None:
    """Make a version 3 image one that libvirt reads. Raises `StoreError`."""
    _relabel(fd, path, version=2)


def _relabel(fd: int, path: str, *, version: int) -> None:
    header = parse_header(os.pread(fd, HEADER_BYTES, 0), path)
    prefix = read_prefix(fd, path)
    stream = read_stream_head(fd, path, header.data_offset_bytes, prefix.file_bytes)
    if stream.layout != MAPPED_RAM:
        raise ImageInvalid(path, header.data_offset_bytes, "its stream is not mapped-ram")
    labelled = replace(
        header,
        version=version,
        image_format=ImageFormat.SPARSE if version == 2 else ImageFormat.RAW,
        features=FEATURE_MAPPED_RAM if version == 3 else 0,
    )
    try:
        os.pwrite(fd, labelled.pack(), 0)
        os.fsync(fd)
    except OSError as exc:
        raise StoreError(
            f"{path}: writing the header of version {version} failed: {exc.strerror}.", path=path
        ) from exc


def _refuse_other_openers(fd: int, path: str) -> None:
    """A write lease is given only while nobody else has the file open (fcntl(2))."""
    try:
        # Should somebody open it this moment, the kernel tells us with a signal: a harmless one.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as exc:
        raise StoreError(
            f"{path} is open in another process, or its filesystem cannot tell ({exc.strerror}); "
            "its header was left alone.",
            path=path,
        ) from exc
