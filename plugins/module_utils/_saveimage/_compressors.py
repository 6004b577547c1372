# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The programs behind the compressed formats of version 2.

As libvirt calls them: found in PATH by the format's name, ``-c`` to compress (xz also ``-3``),
``-dc`` to decompress (lzop also ``--ignore-warn``); spec/libvirt.md 1.3. Where a program can use
all cores it is told to; what it writes stays the same format.
"""

from __future__ import annotations

import shutil
import typing as t
from dataclasses import dataclass

from .._errors import Refused


@dataclass(frozen=True)
class Compressor:
    """``compress`` and ``decompress``: arguments of ``program``, from stdin to stdout.
    ``package``: the Debian package that has it."""

    program: str
    package: str
    compress: tuple[str, ...]
    decompress: tuple[str, ...]


_COMPRESSORS: t.Mapping[str, Compressor] = {
    "gzip": Compressor("gzip", "gzip", ("-c",), ("-dc",)),
    "bzip2": Compressor("bzip2", "bzip2", ("-c",), ("-dc",)),
    "xz": Compressor("xz", "xz-utils", ("-3", "-T0", "-c"), ("-T0", "-dc")),
    "lzop": Compressor("lzop", "lzop", ("-c",), ("-dc", "--ignore-warn")),
    "zstd": Compressor("zstd", "zstd", ("-T0", "-q", "-c"), ("-q", "-dc")),
}


def compressor_of(image_format: str) -> Compressor | None:
    """The program of a format by its label; None for raw and sparse."""
    return _COMPRESSORS.get(image_format)


def find_program(compressor: Compressor) -> str:
    """Full path of the program. Raises `Refused` naming the package when it is missing."""
    path = shutil.which(compressor.program)
    if path is None:
        raise Refused(
            f"The program {compressor.program} is not installed on this host; its format needs "
            f"it. On Debian it is in the package {compressor.package}."
        )
    return path
