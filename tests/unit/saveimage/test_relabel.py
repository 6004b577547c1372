# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version 3 and version 2 sparse are the same image but for three words."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageInvalid,
    StoreError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import (
    HEADER_BYTES,
    parse_header,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._relabel import (
    as_sparse,
    as_version_3,
    stamp,
)
from ansible_collections.vmfleet.suspend.tests.support.images import (
    Block,
    libvirt_prefix,
    sequential_stream,
    write_mapped,
)


@pytest.fixture
def sparse_image(tmp_path):
    path = tmp_path / "sparse.save"
    write_mapped(path, [Block("pc.ram", 64, {5: b"x" * 4096})])
    return path


@pytest.fixture
def sequential_image(tmp_path):
    path = tmp_path / "raw.save"
    path.write_bytes(libvirt_prefix(image_format=0) + sequential_stream())
    return path


def words_of(path):
    header = parse_header(path.read_bytes()[:HEADER_BYTES], str(path))
    return header.version, header.image_format.label, header.features


def test_there_and_back_changes_nothing_else(sparse_image):
    before = sparse_image.read_bytes()
    with sparse_image.open("r+b") as file:
        as_version_3(file.fileno(), str(sparse_image))
        assert words_of(sparse_image) == (3, "raw", 1)
        assert sparse_image.read_bytes()[HEADER_BYTES:] == before[HEADER_BYTES:]
        as_sparse(file.fileno(), str(sparse_image))
    assert sparse_image.read_bytes() == before


def test_an_image_that_somebody_has_open_is_not_stamped(sparse_image):
    with sparse_image.open("r+b") as file:
        with sparse_image.open("rb"), pytest.raises(StoreError, match="is open in another process"):
            stamp(file.fileno(), str(sparse_image))
        assert words_of(sparse_image) == (2, "sparse", 0)
        stamp(file.fileno(), str(sparse_image))
    assert words_of(sparse_image) == (3, "raw", 1)


def test_a_header_that_cannot_be_written_is_an_error_and_stays(sparse_image):
    fd = os.open(sparse_image, os.O_RDONLY)
    try:
        with pytest.raises(StoreError, match="writing the header of version 3 failed"):
            as_version_3(fd, str(sparse_image))
    finally:
        os.close(fd)
    assert words_of(sparse_image) == (2, "sparse", 0)


def test_a_sequential_stream_is_never_called_mapped_ram(sequential_image):
    with sequential_image.open("r+b") as file, pytest.raises(ImageInvalid, match="not mapped-ram"):
        as_version_3(file.fileno(), str(sequential_image))
