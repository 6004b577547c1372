# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save that died left: every kind of file, and what is read from it."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import (
    SPENT_BY,
    SPENT_FOR_INSPECTION,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._qemu_conf import QemuConf
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._bookmark import (
    Bookmark,
    Found,
    StateBefore,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._leftover import (
    DEAD,
    GONE,
    NOBODY,
    OTHER,
    PARTIAL,
    READY,
    SPENT,
    THIS,
    UNWRITTEN,
    places,
    read_leftover,
    remembered_only,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._plan import plan_save
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._record import (
    build_beginning,
    build_record,
    state_before,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._life import mark_spent
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    PartialImage,
    partial_path,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._record import RECORD_TAG
from ansible_collections.vmfleet.suspend.tests.support.images import Block, write_mapped
from ansible_collections.vmfleet.suspend.tests.support.model_guest import identity_of
from ansible_collections.vmfleet.suspend.tests.support.values import (
    OTHER_QEMU,
    SOCKET,
    a_guest,
)

THIS_GUEST = a_guest()
XML = "<domain type='kvm'><name>web01</name></domain>"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "web01.save"


@pytest.fixture
def hidden(target):
    return target.with_name(".web01.save.partial")


def beginning(target, inode, guest=THIS_GUEST, **options):
    """What a save of ``guest`` writes before anything else."""
    request = SaveRequest(path=str(target), qmp_socket=guest.qmp_socket, **options)
    conf = QemuConf("/nonexistent/qemu.conf", None, None)
    plan = plan_save(request, guest, conf, None, None, cpu_count=1, free_bytes=1 << 40)
    return build_beginning(plan, XML, build_record(guest, plan, inode))


def begin(path, target, guest=THIS_GUEST, **options):
    """A partial file as a save leaves it, at ``path``."""
    path.touch()
    path.write_bytes(beginning(target, path.stat().st_ino, guest, **options))


def damage_record(path):
    data = bytearray(path.read_bytes())
    data[data.index(RECORD_TAG) + 40] ^= 0xFF
    path.write_bytes(data)


def a_mark(path, fdset_id=3, before=None):
    """The bookmark that this QEMU has of the file at ``path``."""
    before = before or state_before(THIS_GUEST)
    return Found(fdset_id, Bookmark("save", str(path), path.stat().st_ino, before))


def read(path, target, guest=THIS_GUEST, found=()):
    image = PartialImage.adopt(str(target), str(path))
    assert image is not None
    with contextlib.closing(image):
        return read_leftover(image, guest, found)


# Nothing was written that QEMU could know of.


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: bytes(len(whole)), id="zeros"),
        pytest.param(lambda whole: whole[:10], id="part of the magic"),
        pytest.param(lambda whole: whole[:16], id="the magic"),
        pytest.param(lambda whole: whole[:92], id="the header"),
        pytest.param(lambda whole: whole[:8192], id="part of the XML area"),
        pytest.param(lambda whole: whole[:-1], id="all but a byte"),
        pytest.param(lambda whole: whole[:16] + bytes(len(whole)), id="the magic and zeros"),
    ],
)
def test_an_unfinished_beginning_was_never_told_to_qemu(hidden, target, content):
    hidden.write_bytes(content(beginning(target, 1)))
    left = read(hidden, target)
    assert (left.state, left.owner, left.published) == (UNWRITTEN, NOBODY, False)
    assert left.before is None
    assert left.fdset_id is None


@pytest.mark.parametrize("content", [b"", bytes(1 << 16)], ids=["empty", "zeros"])
def test_a_beginning_that_qemu_cut_off_is_known_by_its_bookmark(hidden, target, content):
    hidden.write_bytes(content)
    left = read(hidden, target, found=[a_mark(hidden)])
    assert (left.state, left.owner, left.fdset_id) == (PARTIAL, THIS, 3)
    assert left.before == state_before(THIS_GUEST)


# A whole beginning: whose is it?


def test_a_partial_file_tells_all_about_its_save(hidden, target):
    begin(hidden, target, guest_state="running")
    left = read(hidden, target)
    assert (left.state, left.owner, left.published) == (PARTIAL, THIS, False)
    assert (left.path, left.target) == (str(hidden), str(target))
    assert (left.version, left.image_format, left.is_mapped_ram) == (3, "raw", True)
    assert (left.name, left.uuid) == (THIS_GUEST.name, THIS_GUEST.uuid)
    assert (left.qmp_socket, left.source) == (SOCKET, THIS_GUEST.process)
    assert left.before == state_before(THIS_GUEST)
    assert left.asked_guest_state == "running"
    assert left.fdset_id is None


@pytest.mark.parametrize(
    ("options", "mapped"),
    [({}, True), ({"image_format": "sparse"}, True), ({"image_format": "zstd"}, False)],
)
def test_only_mapped_pages_can_be_compared_with_the_ram(hidden, target, options, mapped):
    begin(hidden, target, **options)
    assert read(hidden, target).is_mapped_ram is mapped


def test_of_the_state_before_the_file_goes_first_of_the_fdset_the_bookmark(hidden, target):
    begin(hidden, target)
    elsewhere = Found(0, Bookmark("save", "/store/x", 1, StateBefore("prelaunch", {}, {})))
    paused = a_mark(hidden, before=StateBefore("paused", {}, {}))
    left = read(hidden, target, found=[elsewhere, paused])
    assert left.fdset_id == 3
    assert left.before == state_before(THIS_GUEST)


@pytest.mark.parametrize(
    ("guest", "owner"),
    [
        pytest.param(THIS_GUEST, THIS, id="its own"),
        pytest.param(a_guest(process=OTHER_QEMU), DEAD, id="another, its own is dead"),
        pytest.param(None, DEAD, id="none"),
        pytest.param(a_guest(process=None), DEAD, id="one in another pid namespace"),
    ],
)
def test_the_owner_is_known_by_its_process(hidden, target, guest, owner):
    begin(hidden, target)
    assert read(hidden, target, guest).owner == owner


def test_another_qemu_that_lives_is_the_owner(hidden, target):
    begin(hidden, target, a_guest(process=identity_of(os.getpid())))
    assert read(hidden, target).owner == OTHER
    assert read(hidden, target, None).owner == OTHER


def test_a_pid_that_was_used_again_is_another_process(hidden, target):
    process = replace(identity_of(os.getpid()), start_ticks=1)
    begin(hidden, target, a_guest(process=process))
    assert read(hidden, target).owner == DEAD


@pytest.mark.parametrize(
    ("guest", "owner"),
    [
        pytest.param(a_guest(process=None), THIS, id="its own"),
        pytest.param(a_guest(process=None, qmp_socket="/run/db01.qmp"), OTHER, id="another socket"),
        pytest.param(THIS_GUEST, OTHER, id="one that is seen"),
        pytest.param(None, DEAD, id="none"),
    ],
)
def test_in_another_pid_namespace_the_owner_is_known_by_its_socket(hidden, target, guest, owner):
    begin(hidden, target, a_guest(process=None))
    assert read(hidden, target, guest).owner == owner


def test_a_copy_of_a_partial_file_has_no_qemu(hidden, target, tmp_path):
    other = tmp_path / "original"
    begin(other, target)
    shutil.copy(other, hidden)
    left = read(hidden, target, found=[a_mark(other)])
    assert (left.state, left.owner, left.fdset_id) == (PARTIAL, DEAD, None)


def test_a_damaged_record_leaves_the_bookmark(hidden, target):
    begin(hidden, target)
    damage_record(hidden)
    left = read(hidden, target, found=[a_mark(hidden)])
    assert (left.state, left.owner, left.fdset_id) == (PARTIAL, THIS, 3)
    assert left.before == state_before(THIS_GUEST)
    assert left.version is None


def test_without_record_and_bookmark_it_was_never_told_to_qemu(hidden, target):
    begin(hidden, target)
    damage_record(hidden)
    assert read(hidden, target).state == UNWRITTEN


# Later in its life.


def set_magic(path):
    with path.open("r+b") as image:
        image.write(b"LibvirtQemudSave")


def test_a_whole_image_without_its_name_is_ready(hidden, target):
    begin(hidden, target)
    set_magic(hidden)
    left = read(hidden, target)
    assert (left.state, left.owner, left.published) == (READY, THIS, False)


def test_a_published_image_is_told_by_its_name(target):
    begin(target, target)
    set_magic(target)
    left = read(target, target)
    assert (left.state, left.owner, left.published) == (READY, THIS, True)


@pytest.mark.parametrize(
    ("notes", "by_save"),
    [
        ({SPENT_BY: SPENT_FOR_INSPECTION}, True),
        ({SPENT_BY: "failed publish"}, True),
        ({"loaded_into": OTHER_QEMU.as_dict()}, False),
        ({SPENT_BY: ["what nobody writes"]}, False),
    ],
)
def test_who_spent_it_is_read_from_its_notes(target, notes, by_save):
    begin(target, target)
    set_magic(target)
    with target.open("r+b") as image:
        mark_spent(image.fileno(), str(target), notes)
    left = read(target, target)
    assert (left.state, left.spent_by is not None) == (SPENT, by_save)


# What is none of ours.

FOREIGN = {
    "another file": b"#!/bin/sh\n" + b"x" * 4096,
    "a short one": b"x",
    "text that begins like an image": b"LibvirtQemudSomething else" + bytes(4096),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_in_the_way_is_refused_and_kept(hidden, target, content):
    hidden.write_bytes(content)
    with pytest.raises(Refused, match=r"web01\.save\.partial is in the way.* not a save image"):
        read(hidden, target)
    assert hidden.read_bytes() == content


def test_a_whole_image_of_libvirts_in_the_way_is_refused_and_kept(hidden, target):
    write_mapped(hidden, [Block()])
    before = hidden.read_bytes()
    with pytest.raises(Refused, match=r"is in the way.* a whole image without our record"):
        read(hidden, target)
    assert hidden.read_bytes() == before


def test_a_whole_image_that_is_damaged_is_refused_and_kept(hidden, target):
    begin(hidden, target)
    set_magic(hidden)
    os.truncate(hidden, 4096)
    with pytest.raises(Refused, match="is in the way"):
        read(hidden, target)
    assert hidden.exists()


def test_an_image_of_libvirts_at_the_target_is_nothing_of_ours(target):
    write_mapped(target, [Block()])
    assert read(target, target) is None


@pytest.mark.parametrize("record", [{}, {"source": 7, "image": None, "before": []}])
def test_a_record_that_says_nothing_is_no_error(hidden, target, record, monkeypatch):
    begin(hidden, target)
    monkeypatch.setattr(
        "ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefix.unpack_block",
        lambda tag, data: record,
    )
    left = read(hidden, target)
    assert (left.state, left.owner, left.before) == (PARTIAL, OTHER, None)


# Only QEMU remembers.


def test_a_file_that_is_gone_is_known_by_its_bookmark_alone(hidden, target):
    hidden.touch()
    mark = a_mark(hidden)
    left = remembered_only(mark)
    assert (left.state, left.owner, left.published) == (GONE, THIS, False)
    assert (left.path, left.target) == (str(hidden), str(target))
    assert (left.fdset_id, left.before) == (3, mark.bookmark.before)


def test_files_are_looked_at_from_the_most_telling_to_the_target(hidden, target, tmp_path):
    hidden.touch()
    elsewhere = tmp_path / ".other.save.partial"
    elsewhere.touch()
    restore = Found(9, Bookmark("restore", "/store/db.save", 1, StateBefore("inmigrate", {}, {})))
    assert places(str(target), [a_mark(hidden), a_mark(elsewhere), restore]) == [
        partial_path(str(target)),
        str(target),
        str(elsewhere),
        str(tmp_path / "other.save"),
    ]
