# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The 92-byte header, by round trip and by every refusal."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageInvalid,
    NotASaveImage,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import (
    HEADER_BYTES,
    ImageFormat,
    SaveHeader,
    parse_header,
)
from ansible_collections.vmfleet.suspend.tests.support.images import header

ORDERS = ("little", "big")
WORD = st.integers(1, (1 << 32) - 1)


@st.composite
def headers(draw):
    version = draw(st.sampled_from([2, 3]))
    length = draw(WORD)
    return SaveHeader(
        complete=draw(st.booleans()),
        version=version,
        data_length_bytes=length,
        was_running=draw(st.booleans()),
        image_format=ImageFormat.RAW if version == 3 else draw(st.sampled_from(ImageFormat)),
        cookie_offset_bytes=draw(st.integers(0, length - 1)),
        features=draw(st.sampled_from([0, 1])) if version == 3 else 0,
        byte_order=draw(st.sampled_from(ORDERS)),
    )


@given(headers())
def test_what_was_packed_is_read_back(original):
    packed = original.pack()
    assert len(packed) == HEADER_BYTES
    assert parse_header(packed, "image") == original


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read_never_anything_else(data):
    try:
        parse_header(b"LibvirtQemudSave" + data, "image")
    except ImageInvalid as refused:
        assert refused.path == "image"


@pytest.mark.parametrize("byte_order", ORDERS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_versions_1_and_2_are_read_in_either_byte_order_with_all_formats(
    version, image_format, byte_order
):
    data = header(
        data_length=70000, version=version, image_format=image_format, byte_order=byte_order
    )
    parsed = parse_header(data, "image")
    assert (parsed.version, parsed.image_format, parsed.byte_order) == (
        version,
        image_format,
        byte_order,
    )
    assert parsed.data_offset_bytes == 70092


def test_a_formats_label_is_the_word_of_qemu_conf():
    labels = [image_format.label for image_format in ImageFormat]
    assert labels == ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"]
    assert [ImageFormat.from_label(label) for label in labels] == list(range(7))


def test_version_3_has_its_feature_bits_in_the_first_unused_word():
    data = header(data_length=4004, version=3, image_format=0, features=1)
    assert struct.unpack_from("<I", data, 36) == (1,)
    assert parse_header(data, "image").features == 1


def test_an_unused_word_that_is_set_is_ignored_as_libvirt_ignores_it():
    data = bytearray(header(data_length=4004))
    data[36:40] = b"\xff\xff\xff\xff"
    data[60] = 1
    assert parse_header(bytes(data), "image").features == 0


@pytest.mark.parametrize(
    ("fields", "offset", "words"),
    [
        ({"version": 0}, 16, "version 0"),
        ({"version": 4}, 16, "version "),
        ({"version": 7}, 16, "version 7"),
        ({"data_length": 0}, 20, "length of the XML area is 0"),
        ({"image_format": 7}, 28, "format 7"),
        ({"cookie_offset": 4004}, 32, "4004"),
        ({"version": 3, "image_format": 6, "features": 1}, 28, "format 6"),
        ({"version": 3, "image_format": 0, "features": 0b100011}, 36, "bits 1, 5"),
    ],
)
def test_a_field_that_no_reader_could_follow_is_refused_with_its_offset_and_number(
    fields, offset, words
):
    with pytest.raises(ImageInvalid, match=words) as refused:
        parse_header(header(**{"data_length": 4004, **fields}), "/store/image")
    assert refused.value.offset_bytes == offset
    assert "/store/image" in refused.value.message


def test_another_magic_is_no_save_image_and_a_short_header_is_a_broken_one():
    with pytest.raises(NotASaveImage):
        parse_header(b"\x7fELF" + bytes(100), "image")
    with pytest.raises(NotASaveImage):
        parse_header(b"", "image")
    with pytest.raises(ImageInvalid, match="50 of 92"):
        parse_header(header(data_length=1)[:50], "image")


@pytest.mark.parametrize("version", [1, 4])
def test_only_versions_2_and_3_are_written(version):
    with pytest.raises(ValueError, match=str(version)):
        SaveHeader(True, version, 100, True, ImageFormat.RAW).pack()


def test_version_3_and_version_2_sparse_differ_in_three_words_only():
    three = SaveHeader(True, 3, 4004, True, ImageFormat.RAW, features=1).pack()
    sparse = SaveHeader(True, 2, 4004, True, ImageFormat.SPARSE).pack()
    words = [n for n in range(16, HEADER_BYTES, 4) if three[n : n + 4] != sparse[n : n + 4]]
    assert words == [16, 28, 36]
