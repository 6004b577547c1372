# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing a store in which one file cannot be read: it is named, and the others are listed."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_info import list_images
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, write_mapped

NAMES = ("a.save", "b.save", "c.save")
BROKEN = "b.save"


@pytest.fixture
def store(tmp_path):
    for name in NAMES:
        write_mapped(tmp_path / name, [Block("pc.ram", 64, {1: b"\x11" * PAGE})])
    return tmp_path


@pytest.fixture
def break_reads(store, monkeypatch):
    """Makes a call of ``os`` fail for the broken file, with pread from an offset in bytes on."""

    fstat = os.fstat

    def break_call(name, number, from_offset_bytes=0):
        real, broken = getattr(os, name), (store / BROKEN).stat().st_ino

        def call(fd, *arguments):
            offset = arguments[1] if name == "pread" else from_offset_bytes
            if fstat(fd).st_ino == broken and offset >= from_offset_bytes:
                raise OSError(number, os.strerror(number))
            return real(fd, *arguments)

        monkeypatch.setattr(os, name, call)

    return break_call


def listed(store):
    images = list_images(str(store), read_memory_map=True).images
    assert [os.path.basename(image["path"]) for image in images] == list(NAMES)
    assert [image["state"] for image in images[::2]] == ["ready", "ready"]
    assert [image["problems"] for image in images[::2]] == [[], []]
    return images[1]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("call", ["pread", "lseek", "fstat"])
def test_a_file_that_cannot_be_read_is_unreadable_and_hides_no_other(
    store, break_reads, call, number
):
    break_reads(call, number)
    image = listed(store)
    assert image["state"] == "unreadable"
    assert image["problems"] == [f"{store / BROKEN} cannot be read: {os.strerror(number)}"]


def test_what_was_read_before_the_error_is_told(store, break_reads):
    stream_starts = list_images(str(store / BROKEN), read_memory_map=False).images[0]
    break_reads("pread", errno.EIO, from_offset_bytes=stream_starts["data_offset_bytes"])
    image = listed(store)
    assert image["state"] == "unreadable"
    assert image["apparent_bytes"] == (store / BROKEN).stat().st_size
    assert image["data_offset_bytes"] == stream_starts["data_offset_bytes"]
    assert "ram_blocks" not in image


def test_an_image_alone_that_cannot_be_read_is_described_too(store, break_reads):
    break_reads("pread", errno.EIO)
    (image,) = list_images(str(store / BROKEN), read_memory_map=False).images
    assert (image["state"], image["apparent_bytes"]) == (
        "unreadable",
        (store / BROKEN).stat().st_size,
    )
