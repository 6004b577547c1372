# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive writer against the format's description, field by field."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.tests.support.cpio import (
    Entry,
    archive,
    character_device,
    directory,
    program,
)

HEADER_BYTES = 110
FIELDS = (
    *("inode", "mode", "owner", "group", "links", "changed_at", "size"),
    *("device_major", "device_minor", "node_major", "node_minor", "name_size", "check"),
)
# A name ends at its first zero byte.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
ENTRIES = st.builds(
    Entry,
    NAMES,
    st.integers(0, 0o177777),
    st.binary(max_size=40),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
)


def read(data):
    """(name, fields, content) of each member, as the kernel reads them."""
    members = []
    position = 0
    while position < len(data):
        header = data[position : position + HEADER_BYTES]
        assert header[:6] == b"070701"
        values = [int(header[start : start + 8], 16) for start in range(6, HEADER_BYTES, 8)]
        fields = dict(zip(FIELDS, values, strict=True))
        name_end = position + HEADER_BYTES + fields["name_size"]
        name = data[position + HEADER_BYTES : name_end]
        content_start = -(-name_end // 4) * 4
        content_end = content_start + fields["size"]
        position = -(-content_end // 4) * 4
        assert name.endswith(b"\0")
        assert not any(data[name_end:content_start] + data[content_end:position])
        members.append((name[:-1].decode(), fields, data[content_start:content_end]))
    assert position == len(data)
    return members


@given(st.lists(ENTRIES, max_size=5))
def test_what_is_written_is_read_back_and_the_trailer_is_last(entries):
    *members, (trailer, trailer_fields, nothing) = read(archive(entries))
    assert [
        Entry(name, fields["mode"], content, (fields["node_major"], fields["node_minor"]))
        for name, fields, content in members
    ] == entries
    assert (trailer, trailer_fields["size"], nothing) == ("TRAILER!!!", 0, b"")


@given(st.lists(ENTRIES, max_size=5))
def test_no_member_is_a_hard_link_of_another(entries):
    members = read(archive(entries))
    assert {fields["links"] for _name, fields, _content in members} == {1}
    assert len({fields["inode"] for _name, fields, _content in members}) == len(members)


def test_a_member_is_laid_out_as_described():
    zero, inode, mode, links = b"00000000", b"00000001", b"000081ED", b"00000001"
    size, name_size = b"00000002", b"00000005"
    header = [inode, mode, zero, zero, links, zero, size, zero, zero, zero, zero, name_size, zero]
    member = b"070701" + b"".join(header) + b"init\0" + b"\0" + b"#!" + b"\0\0"
    assert archive([program("init", b"#!")]).startswith(member + b"070701")


def test_the_kinds_of_file_have_their_type_and_who_may_use_them():
    assert stat.filemode(directory("bin").mode) == "drwxr-xr-x"
    assert stat.filemode(program("init", b"").mode) == "-rwxr-xr-x"
    assert stat.filemode(character_device("dev/null", 1, 3).mode) == "crw-------"
    assert character_device("dev/null", 1, 3).device == (1, 3)
