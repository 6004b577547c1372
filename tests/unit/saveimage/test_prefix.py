# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything before the stream, and the blocks of our own in its padding."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import ImageInvalid
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import (
    ImageFormat,
    SaveHeader,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._life import (
    LifeState,
    life_block,
    life_state,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefix import (
    build_prefix,
    plan_prefix,
    read_prefix,
    record_in,
    with_record,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._record import (
    RECORD_TAG,
    pack_block,
    unpack_block,
)
from ansible_collections.vmfleet.suspend.tests.support.images import header, libvirt_prefix

HEADER = SaveHeader(False, 3, 0, True, ImageFormat.RAW, features=1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
JSON = st.dictionaries(
    st.text(max_size=8), st.integers() | st.text(max_size=20) | st.none(), max_size=8
)


def read(data, tmp_path, name="image"):
    path = tmp_path / name
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_prefix(fd, str(path))
    finally:
        os.close(fd)


@given(JSON)
def test_a_block_gives_back_what_was_put_in(payload):
    assert unpack_block(RECORD_TAG, pack_block(RECORD_TAG, payload) + b"behind it") == payload


@given(st.data())
def test_a_block_with_any_byte_changed_or_cut_off_is_no_block(data):
    block = pack_block(RECORD_TAG, {"name": "web01", "pid": 4711})
    position = data.draw(st.integers(0, len(block) - 1))
    flipped = bytearray(block)
    flipped[position] ^= data.draw(st.integers(1, 255))
    assert unpack_block(RECORD_TAG, bytes(flipped)) is None
    assert unpack_block(RECORD_TAG, block[:position]) is None


@given(xml=TEXT, cookie=st.none() | TEXT, record=JSON)
def test_a_prefix_gives_back_what_was_put_in(tmp_path_factory, xml, cookie, record):
    layout = plan_prefix(xml, cookie, len(pack_block(RECORD_TAG, record)))
    data = build_prefix(layout, HEADER, xml, cookie, record, life_block(LifeState.PARTIAL, {}))
    assert len(data) == layout.data_offset_bytes
    prefix = read(data, tmp_path_factory.mktemp("prefix"))
    assert (prefix.xml, prefix.cookie, prefix.record) == (xml, cookie, record)
    assert prefix.header.data_offset_bytes == layout.data_offset_bytes
    assert life_state(prefix) is LifeState.PARTIAL


@pytest.mark.parametrize("xml_bytes", [1, 1000, 4000, 4096, 100_000])
def test_the_layout_gives_libvirts_padding_and_aligns_the_data(xml_bytes):
    layout = plan_prefix("x" * xml_bytes, None, 5000)
    assert layout.data_offset_bytes % 4096 == 0
    assert layout.record_offset_bytes % 4096 == 0
    assert 0 <= layout.record_offset_bytes - (92 + xml_bytes + 1) - 65536 < 4096
    assert layout.record_capacity_bytes >= 5000
    assert layout.life_offset_bytes == layout.data_offset_bytes - 4096


def test_a_record_that_outgrew_its_room_is_a_defect_not_an_image():
    layout = plan_prefix("<domain/>", None, 4096)
    record = {"argv": "x" * 5000}
    with pytest.raises(ValueError, match="do not fit"):
        build_prefix(layout, HEADER, "<domain/>", None, record, life_block(LifeState.READY, {}))


def test_a_life_block_that_outgrew_its_sector_is_a_defect_too():
    layout = plan_prefix("<domain/>", None, 4096)
    life = life_block(LifeState.READY, {"words": "x" * 500})
    with pytest.raises(ValueError, match="do not fit"):
        build_prefix(layout, HEADER, "<domain/>", None, {}, life)


def test_a_record_may_fill_its_room_to_the_last_byte(tmp_path):
    layout = plan_prefix("<domain/>", None, 4096)
    record = {"argv": "x" * (4096 - len(pack_block(RECORD_TAG, {"argv": ""})))}
    data = build_prefix(layout, HEADER, "<domain/>", None, record, life_block(LifeState.READY, {}))
    prefix = read(data, tmp_path)
    assert prefix.record == record
    assert prefix.life is not None


@pytest.mark.parametrize("cookie", [None, "<cookie/>"])
@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_what_libvirt_writes_is_read(tmp_path, cookie, byte_order):
    data = libvirt_prefix("<domain><name>a</name></domain>", cookie, byte_order=byte_order)
    prefix = read(data, tmp_path)
    assert (prefix.xml, prefix.cookie) == ("<domain><name>a</name></domain>", cookie)
    assert (prefix.record, prefix.life) == (None, None)
    assert life_state(prefix) is LifeState.READY


def test_after_libvirt_wiped_our_blocks_the_image_is_still_read(tmp_path):
    layout = plan_prefix("<domain/>", None, 4096)
    data = bytearray(
        build_prefix(layout, HEADER, "<domain/>", None, {"a": 1}, life_block(LifeState.SPENT, {}))
    )
    data[92 + 10 :] = bytes(len(data) - 102)
    prefix = read(bytes(data), tmp_path)
    assert (prefix.record, prefix.life) == (None, None)
    assert prefix.life_offset_bytes == layout.life_offset_bytes


@pytest.mark.parametrize("length", [200, 1 << 30, (1 << 32) - 1])
def test_a_length_beyond_the_file_is_refused_without_reading_it(tmp_path, length):
    with pytest.raises(ImageInvalid, match=str(length)) as refused:
        read(header(data_length=length) + b"<domain/>\0", tmp_path)
    assert refused.value.offset_bytes == 20


def test_a_huge_length_in_a_huge_sparse_file_is_not_believed(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(header(data_length=1 << 30))
    os.truncate(path, 2 << 30)
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(ImageInvalid, match="at most"):
        read_prefix(fd, str(path))
    os.close(fd)


def test_text_that_is_not_utf_8_is_refused_with_its_offset(tmp_path):
    with pytest.raises(ImageInvalid, match="UTF-8") as refused:
        read(header(data_length=20) + b"<a>\xff</a>".ljust(20, b"\0"), tmp_path)
    assert refused.value.offset_bytes == 95


def test_the_record_can_be_written_again_in_the_room_that_was_planned_for_it(tmp_path):
    layout = plan_prefix("<domain/>", "<cookie/>", 4096)
    life = life_block(LifeState.PARTIAL, {})
    data = build_prefix(layout, HEADER, "<domain/>", "<cookie/>", {"first": 1}, life)
    assert record_in(data) == {"first": 1}
    again = with_record(data, {"second": "x" * 3000})
    assert len(again) == len(data)
    prefix = read(again, tmp_path)
    assert prefix.record == record_in(again) == {"second": "x" * 3000}
    assert (prefix.xml, prefix.cookie) == ("<domain/>", "<cookie/>")
    assert life_state(prefix) is LifeState.PARTIAL
    assert with_record(again, {"first": 1}) == data


def test_a_record_that_outgrew_its_room_is_not_cut():
    layout = plan_prefix("<domain/>", None, 4096)
    data = build_prefix(layout, HEADER, "<domain/>", None, {}, life_block(LifeState.PARTIAL, {}))
    with pytest.raises(ValueError, match="does not fit"):
        with_record(data, {"a": "x" * 5000})


def test_where_there_is_no_record_none_is_put():
    data = libvirt_prefix("<domain/>", None)
    assert record_in(data) is None
    with pytest.raises(ValueError, match="does not fit"):
        with_record(data, {})
