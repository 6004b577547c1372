# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of image, as options of a save."""

from __future__ import annotations

import shutil
import typing as t

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._compressors import (
    compressor_of,
)

KINDS: dict[str, dict[str, t.Any]] = {
    "v3": {"image_version": 3},
    "v2-sparse": {"image_format": "sparse"},
    "v2-raw": {"image_format": "raw"},
    "v2-gzip": {"image_format": "gzip"},
    "v2-bzip2": {"image_format": "bzip2"},
    "v2-xz": {"image_format": "xz"},
    "v2-lzop": {"image_format": "lzop"},
    "v2-zstd": {"image_format": "zstd"},
}


def needs_program(image_format: str) -> None:
    """Skip where the format's program is not installed.

    Set-up does not force one onto a machine: Debian's xz-utils and bzip2 would exchange libraries
    of the base system, and a program that is missing is refused by name, which has its own tests.
    """
    compressor = compressor_of(image_format)
    if compressor is not None and shutil.which(compressor.program) is None:
        pytest.skip(f"needs the program {compressor.program}: install {compressor.package}")
