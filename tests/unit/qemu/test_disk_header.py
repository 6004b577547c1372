# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The beginning of a disk image: its format, and the fields of qcow2 that move when it changes."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._disk_header import (
    header_facts,
)

BLOCK_BYTES = 4096
BACKING = b"base.raw"
needs_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not in PATH; `make test` installs it"
)


def a_qcow2(version=3, backing=b"", features=(0, 0, 0)):
    """The first block of a qcow2 image, by docs/interop/qcow2.rst."""
    start = 512 if backing else 0
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", version, start, len(backing), 16, 1 << 30, 0),
        *(2, 0x30000, 0x10000, 1, 3, 0x50000),
    )
    header += struct.pack(">QQQ", *features) if version >= 3 else b""
    return (header.ljust(512, b"\0") + backing).ljust(BLOCK_BYTES, b"\0")


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"", "raw"),
        (b"\0" * BLOCK_BYTES, "raw"),
        (b"QFI", "raw"),
        (b"QFI\xfb", "qcow2"),
        (b"QFI\xfb\0\0\0\1", "qcow"),
        (b"QFI\xfb\0\0\0\2", "qcow2"),
        (b"QED\0", "qed"),
        (b"KDMV", "vmdk"),
        (b"LUKS\xba\xbe", "luks"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
    ],
)
def test_a_format_is_known_by_how_it_begins(beginning, name):
    assert header_facts(beginning)["header_format"] == name


def test_the_fields_of_qcow2_are_told_each_by_its_name():
    header = a_qcow2(backing=BACKING, features=(1, 2, 4))
    assert header_facts(header) == {
        "header_format": "qcow2",
        "qcow2_version": 3,
        "qcow2_cluster_bits": 16,
        "qcow2_virtual_size_bytes": 1 << 30,
        "qcow2_encryption": 0,
        "qcow2_l1_entries": 2,
        "qcow2_l1_table_offset": 0x30000,
        "qcow2_refcount_table_offset": 0x10000,
        "qcow2_refcount_table_clusters": 1,
        "qcow2_snapshots": 3,
        "qcow2_snapshots_offset": 0x50000,
        "qcow2_backing_file": "base.raw",
        "qcow2_incompatible_features": 1,
        "qcow2_autoclear_features": 4,
        "header_sha256": hashlib.sha256(header).hexdigest(),
    }


def test_version_2_has_no_features_and_a_lone_image_no_backing_file():
    facts = header_facts(a_qcow2(version=2))
    assert facts["qcow2_version"] == 2
    assert not {"qcow2_incompatible_features", "qcow2_backing_file"} & set(facts)


@pytest.mark.parametrize("length", [4, 71, 72, 95, 96])
def test_of_a_header_that_is_cut_off_only_what_is_whole_is_told(length):
    facts = header_facts(a_qcow2()[:length])
    assert facts["header_format"] == "qcow2"
    assert ("qcow2_version" in facts) == (length >= 72)
    assert ("qcow2_autoclear_features" in facts) == (length >= 96)


def test_the_older_qcow_is_not_read_as_if_it_were_qcow2():
    assert set(header_facts(a_qcow2(version=1))) == {"header_format", "header_sha256"}


def test_a_backing_files_name_that_is_no_utf_8_is_told_as_far_as_it_goes():
    facts = header_facts(a_qcow2(backing=b"caf\xe9.raw"))
    assert facts["qcow2_backing_file"] == "caf\N{REPLACEMENT CHARACTER}.raw"


@given(st.binary(max_size=256), st.sampled_from([b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3"]))
def test_whatever_a_disk_begins_with_there_are_facts(rest, magic):
    facts = header_facts(magic + rest)
    assert facts["header_sha256"] == hashlib.sha256(magic + rest).hexdigest()


@needs_qemu_img
def test_qemu_writes_what_is_read_here(tmp_path):
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(bytes(1 << 20))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, "3M"], check=True
    )
    before = header_facts(top.read_bytes()[:BLOCK_BYTES])
    assert before["qcow2_backing_file"] == str(base)
    assert before["qcow2_virtual_size_bytes"] == 3 << 20
    assert before["qcow2_snapshots"] == 0
    subprocess.run(["qemu-img", "snapshot", "-c", "one", top], check=True)
    assert header_facts(top.read_bytes()[:BLOCK_BYTES])["qcow2_snapshots"] == 1
