# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk is like, what of it is compared, and how a difference is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._block_graph import BlockNode
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fence import (
    changed_disks,
    take_fingerprints,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fingerprint import (
    BLOCK,
    FILE,
    MISSING,
    OTHER,
    SAMPLE_BLOCKS,
    UNREADABLE,
    Fingerprint,
    changes,
    fingerprint,
    sample_offsets,
)

MIB = 1 << 20
PATH = "/srv/web01.img"


def a_disk(kind=FILE, boot_facts=(), **facts):
    return Fingerprint(PATH, kind, facts, dict(boot_facts))


@pytest.fixture
def disk(tmp_path):
    """A file of 8 MiB, the first of them random."""
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(MIB))
    os.truncate(path, 8 * MIB)
    return path


# Where the sample lies


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_sample_is_small_begins_with_the_disk_and_ends_with_it(size):
    offsets = sample_offsets(size)
    assert len(offsets) <= SAMPLE_BLOCKS
    assert offsets[0] == 0
    assert size <= offsets[-1] + 4096
    assert list(offsets) == sorted(set(offsets))
    assert all(offset % 4096 == 0 and offset < max(size, 1) for offset in offsets)


@pytest.mark.parametrize(
    ("size", "offsets"),
    [
        (0, (0,)),
        (1, (0,)),
        (4096, (0,)),
        (4097, (0, 4096)),
        (3 * 4096, (0, 4096, 8192)),
    ],
)
def test_a_small_disk_is_sampled_whole(size, offsets):
    assert sample_offsets(size) == offsets


def test_the_first_two_mib_are_looked_at_wherever_the_rest_lies():
    assert {0, MIB, 2 * MIB} <= set(sample_offsets(1 << 40))


# What is found


def test_a_file_is_told_by_what_its_inode_says_and_by_what_it_holds(disk):
    found, status = fingerprint(str(disk)), disk.stat()
    assert (found.path, found.kind) == (str(disk), FILE)
    assert found.facts["inode"] == status.st_ino
    assert found.facts["size_bytes"] == 8 * MIB
    assert found.facts["mtime_ns"] == status.st_mtime_ns
    assert {"header_format", "header_sha256", "sample_sha256"} <= set(found.facts)
    assert found.boot_facts == {"device": status.st_dev}


def test_a_look_changes_nothing(disk):
    before = disk.stat()
    assert fingerprint(str(disk)) == fingerprint(str(disk))
    assert disk.stat().st_mtime_ns == before.st_mtime_ns
    assert disk.stat().st_ctime_ns == before.st_ctime_ns


@pytest.mark.parametrize("size", [0, 1, 511, 4095, 4096, 4097])
def test_files_smaller_than_a_block_are_told_apart_by_their_bytes(tmp_path, size):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * size)
    found = fingerprint(str(path))
    assert (found.kind, found.facts["size_bytes"]) == (FILE, size)
    path.write_bytes(b"x" * (size - 1) + b"y")
    assert fingerprint(str(path)).facts["sample_sha256"] != found.facts["sample_sha256"]


@pytest.mark.parametrize("offset", [0, 4096 - 1, MIB, 2 * MIB + 4095, 8 * MIB - 1])
def test_a_byte_within_the_sample_shows_even_where_the_time_was_put_back(disk, offset):
    before, status = fingerprint(str(disk)), disk.stat()
    with open(disk, "r+b") as file:
        old = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([old[0] ^ 1]), offset)
    os.utime(disk, ns=(status.st_atime_ns, status.st_mtime_ns))
    said = " ".join(changes(before, fingerprint(str(disk)), same_boot=True))
    assert "sample_sha256" in said
    assert "mtime_ns" not in said
    assert ("header_sha256" in said) == (offset < 4096)


def test_a_name_that_leads_through_a_symlink_is_that_of_the_file(disk, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(disk)
    assert fingerprint(str(link)).facts == fingerprint(str(disk)).facts


def test_a_file_reached_otherwise_keeps_its_own_name(disk):
    found = fingerprint(PATH, str(disk))
    assert (found.path, found.facts) == (PATH, fingerprint(str(disk)).facts)


def make_fifo(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda path: None, MISSING, None),
        (lambda path: path.symlink_to("nowhere"), MISSING, None),
        (lambda path: path.mkdir(), OTHER, None),
        (make_fifo, OTHER, None),
        (make_loop, UNREADABLE, "Too many levels of symbolic links"),
    ],
    ids=["nothing", "dangling symlink", "directory", "fifo without a writer", "symlink loop"],
)
def test_what_is_no_disk_is_named_and_not_waited_for(tmp_path, make, kind, reason):
    path = tmp_path / "disk"
    make(path)
    found = fingerprint(str(path))
    assert (found.kind, found.facts.get("reason")) == (kind, reason)
    assert found.boot_facts == {}


def test_a_socket_is_no_disk():
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/socket")
        assert fingerprint(f"{directory}/socket").kind == OTHER


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_character_device_is_no_disk(device):
    assert fingerprint(device) == Fingerprint(device, OTHER, {}, {})


def test_a_way_through_a_file_is_unreadable(disk):
    found = fingerprint(f"{disk}/below")
    assert (found.kind, found.facts) == (UNREADABLE, {"reason": "Not a directory"})


@pytest.mark.parametrize("name", ["/srv/\0", "/srv/\ud800"], ids=["zero byte", "half a character"])
def test_a_name_that_no_file_can_have_is_unreadable(name):
    found = fingerprint(name)
    assert found.kind == UNREADABLE
    assert found.facts["reason"]


def test_a_file_that_cannot_be_read_says_why(disk, monkeypatch):
    def fail(_fd, _buffers, _offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    assert fingerprint(str(disk)).facts == {"reason": "Input/output error"}
    assert fingerprint(str(disk)).kind == UNREADABLE


def test_no_descriptor_is_left_open(disk, tmp_path):
    before = os.listdir("/proc/self/fd")
    for path in (disk, tmp_path, "/dev/null", tmp_path / "nothing"):
        fingerprint(str(path))
    assert os.listdir("/proc/self/fd") == before


# What is compared


def test_what_is_the_same_differs_in_nothing():
    disk = a_disk(inode=7, boot_facts={"device": 3})
    assert changes(disk, disk, same_boot=True) == ()


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (a_disk(inode=7), a_disk(inode=8), "inode was 7 and is 8"),
        (a_disk(wwid="naa.5"), a_disk(), "wwid was naa.5 and is unknown"),
        (a_disk(), a_disk(MISSING), "it was a file and is missing"),
        (a_disk(BLOCK), a_disk(), "it was a block device and is a file"),
        (a_disk(MISSING), a_disk(), "it was missing and is a file"),
        (a_disk(), a_disk(OTHER), "it was a file and is something else"),
        (
            a_disk(),
            a_disk(UNREADABLE, reason="Permission denied"),
            "it was a file and is unreadable (Permission denied)",
        ),
        (a_disk("tape"), a_disk(), "it was tape and is a file"),
    ],
)
def test_a_difference_names_the_file_the_field_and_both_values(then, now, said):
    assert changes(then, now, same_boot=True) == (f"{PATH}: {said}",)


def test_every_field_that_differs_is_named():
    then = a_disk(inode=7, mtime_ns=1, size_bytes=4)
    said = changes(then, a_disk(inode=8, mtime_ns=2, size_bytes=4), same_boot=True)
    assert [line.split()[1] for line in said] == ["inode", "mtime_ns"]


@pytest.mark.parametrize("kind", [UNREADABLE, OTHER])
def test_what_could_not_be_read_at_the_save_is_not_compared(kind):
    assert changes(a_disk(kind, reason="?"), a_disk(), same_boot=True) == ()


@pytest.mark.parametrize(("same_boot", "differences"), [(True, 1), (False, 0)])
def test_some_facts_last_for_one_boot_only(same_boot, differences):
    then = a_disk(boot_facts={"device": 3})
    now = a_disk(boot_facts={"device": 4})
    assert len(changes(then, now, same_boot=same_boot)) == differences


def test_a_newer_kernel_that_tells_more_changes_no_disk():
    assert changes(a_disk(inode=7), a_disk(inode=7, wwid="naa.5"), same_boot=True) == ()


# How it is kept


def test_what_was_written_is_read_back(disk):
    found = fingerprint(str(disk))
    kept = json.loads(json.dumps(found.as_dict()))
    assert Fingerprint.from_dict(kept) == found


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"path": PATH, "kind": FILE, "facts": {}},
        {"path": PATH, "kind": FILE, "facts": {}, "boot_facts": None},
        {"path": None, "kind": FILE, "facts": {}, "boot_facts": {}},
        {"path": PATH, "kind": 1, "facts": {}, "boot_facts": {}},
        {"path": PATH, "kind": FILE, "facts": {"inode": 1.5}, "boot_facts": {}},
        {"path": PATH, "kind": FILE, "facts": {"inode": None}, "boot_facts": {}},
        {"path": PATH, "kind": FILE, "facts": {}, "boot_facts": {"device": []}},
    ],
)
def test_what_is_no_fingerprint_is_none(data):
    assert Fingerprint.from_dict(data) is None


# The fence around all disks of a guest


def a_node(filename, driver="file", name="node"):
    return BlockNode(name, driver, str(filename), False, None, ())


def test_every_file_is_taken_once_and_only_what_lies_on_this_host(disk, tmp_path):
    nodes = [
        a_node(disk, "qcow2"),
        a_node(disk),
        a_node(disk),
        a_node(tmp_path / "gone", "host_device"),
        a_node("nbd://host/disk", "nbd"),
        a_node("/dev/fdset/3"),
        a_node(""),
    ]
    taken = take_fingerprints(nodes, None, None)
    assert [(one.path, one.kind) for one in taken] == [
        (str(disk), FILE),
        (str(tmp_path / "gone"), MISSING),
    ]


def test_a_relative_name_begins_at_the_directory_given(disk, tmp_path):
    described = json.dumps({"driver": "file", "filename": "disk"})
    nodes = [a_node("disk"), a_node(f"json:{described}")]
    taken = take_fingerprints(nodes, os.getpid(), str(tmp_path))
    assert [(one.path, one.kind) for one in taken] == [(str(disk), FILE)] * 2


IN_A_ROOT = "import os, sys; os.chroot(sys.argv[1]); print(flush=True); input()"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change a root directory")


@as_root
@pytest.mark.parametrize("inside", [False, True], ids=["opened before", "opened after"])
def test_the_disk_of_a_qemu_in_another_root_directory_is_found(tmp_path, disk, inside):
    """QEMU's -chroot comes after it opened its disks; chroot(8) before."""
    jail = tmp_path / "jail"
    jail.mkdir()
    own = jail / str(disk).lstrip("/")
    if inside:
        own.parent.mkdir(parents=True)
        own.write_bytes(b"another")
    with subprocess.Popen([sys.executable, "-c", IN_A_ROOT, jail], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (taken,) = take_fingerprints([a_node(disk)], process.pid, None)
        process.communicate(b"\n")
    assert taken.facts["inode"] == (own if inside else disk).stat().st_ino
    assert taken.path == str(disk)


def test_a_disk_of_a_process_that_has_ended_is_looked_for_by_its_name(disk):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (taken,) = take_fingerprints([a_node(disk)], ended.pid, None)
    assert taken == fingerprint(str(disk))


def test_each_disk_that_changed_is_told(disk, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"x")
    saved = take_fingerprints([a_node(disk), a_node(other)], None, None)
    assert changed_disks(saved, same_boot=True) == ()
    os.truncate(disk, MIB)
    other.unlink()
    said = changed_disks(saved, same_boot=True)
    assert f"{disk}: size_bytes was {8 * MIB} and is {MIB}" in said
    assert f"{other}: it was a file and is missing" in said
