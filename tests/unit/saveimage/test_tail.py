# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of the stream: end marker and device description, to the file's last byte."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import ImageInvalid
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._tail import read_tail

BEFORE = b"\x7e\0\0\0\x02 device state {\0} " * 20


def ending(description, length=None):
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    return b"\x00\x06" + struct.pack(">I", len(text) if length is None else length) + text


def of_length(length, page_size=4096):
    """A description whose JSON has exactly this many bytes."""
    description = {"devices": [], "page_size": page_size, "more": ""}
    return {**description, "more": "x" * (length - len(json.dumps(description)))}


def tail_of(tmp_path, data, after=0):
    path = tmp_path / "image"
    path.write_bytes(data)
    with path.open("rb") as file:
        return read_tail(file.fileno(), str(path), after, len(data))


def test_the_description_names_page_size_and_devices_in_the_streams_order(tmp_path):
    devices = [{"name": "timer", "instance_id": 0}, {"name": "cpu"}, {"name": "cpu"}]
    tail = tail_of(tmp_path, BEFORE + ending({"page_size": 4096, "devices": devices}))
    assert (tail.page_size_bytes, tail.devices) == (4096, ("timer", "cpu", "cpu"))
    assert tail.start_bytes == len(BEFORE)


# 0x7b is `{`, which a length's last bytes may look like; 0x100 and 0x10000 end in NULs.
@pytest.mark.parametrize(
    "length", [0x7B, 0x7B7B, 0x7B00, 0x100, 0x7B7B7B, 0x10000, 0x10100, 300_000, 9 << 20]
)
def test_it_is_found_whatever_the_bytes_of_its_length_look_like(tmp_path, length):
    tail = tail_of(tmp_path, BEFORE + ending(of_length(length)))
    assert (tail.start_bytes, tail.page_size_bytes) == (len(BEFORE), 4096)


@given(st.integers(60, 5000), st.integers(1, 100))
def test_any_cut_is_noticed(tmp_path_factory, length, cut):
    data = BEFORE + ending(of_length(length))
    with pytest.raises(ImageInvalid, match="end marker") as refused:
        tail_of(tmp_path_factory.mktemp("tail"), data[:-cut])
    assert refused.value.offset_bytes == len(data) - cut


@pytest.mark.parametrize("behind", [b"\0", b" ", b"}", b"\0" * 512, b"QEVM"])
def test_anything_behind_the_description_is_noticed(tmp_path, behind):
    with pytest.raises(ImageInvalid, match="appended"):
        tail_of(tmp_path, BEFORE + ending(of_length(500)) + behind)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(4096),
        b"\x00\x06\0\0\0\0",
        ending(of_length(100))[1:],
        b"\x01" + ending(of_length(100))[1:],
        ending({"devices": []}, length=13),
        ending({"devices": []}, length=16),
        ending({"page_size": 4096}),
        ending({"devices": "cpu"}),
        ending([{"devices": []}]),
        ending(b'{"devices": [}'),
        ending(b'{"devices": ["\xff"]}'),
        ending(b'{"devices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
)
def test_what_is_no_description_is_no_end(tmp_path, data):
    with pytest.raises(ImageInvalid, match="end marker"):
        tail_of(tmp_path, data)


def test_a_stream_without_description_is_no_end_and_the_machine_property_is_named(tmp_path):
    with pytest.raises(ImageInvalid, match="suppress-vmdesc=on"):
        tail_of(tmp_path, BEFORE + b"\0")


def test_an_entry_without_a_name_is_passed_over(tmp_path):
    devices = ["cpu", {}, {"name": 3}, {"name": "timer"}]
    tail = tail_of(tmp_path, ending({"devices": devices, "page_size": "4096"}))
    assert (tail.page_size_bytes, tail.devices) == (None, ("timer",))


def test_what_belongs_to_the_ram_is_not_taken_for_the_end(tmp_path):
    data = BEFORE + ending(of_length(200))
    with pytest.raises(ImageInvalid):
        tail_of(tmp_path, data, after=len(BEFORE) + 1)
