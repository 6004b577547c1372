# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's descriptors as QEMU gets them, and the proof of O_DIRECT before it does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    QmpCommandError,
    StoreError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fdset import (
    DIRECT_IO_BYTES,
    direct_io_refusal,
    hand_over,
    take_back,
    uri,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import MonitorLost
from ansible_collections.vmfleet.suspend.tests.support.fake_qemu import FakeQemu
from ansible_collections.vmfleet.suspend.tests.support.model_guest import with_monitor
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor
from ansible_collections.vmfleet.suspend.tests.support.values import BOOKMARK

OFFSET = 2 * DIRECT_IO_BYTES


@pytest.fixture
def image(tmp_path):
    """A file of three pages of ones, open for reading and writing."""
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"\x01" * 3 * DIRECT_IO_BYTES)
    yield fd
    os.close(fd)


@pytest.fixture
def qemu():
    return FakeQemu()


@pytest.fixture
def monitor(tmp_path, qemu):
    with ScriptedMonitor(tmp_path / "qmp", qemu) as scripted:
        yield scripted


def give(monitor, fd, *, write=True, direct=False):
    return with_monitor(
        monitor.path, lambda session: hand_over(session, fd, BOOKMARK, write=write, direct=direct)
    )


def refuse_direct(error=None, moved=DIRECT_IO_BYTES):
    """os.open and os.pwrite of a filesystem that refuses O_DIRECT with ``error``, or that moves
    only ``moved`` bytes."""
    real_open = os.open

    def opening(path, flags, *arguments, **options):
        if flags & os.O_DIRECT and error is not None:
            raise OSError(error, os.strerror(error))
        return real_open(path, flags & ~os.O_DIRECT, *arguments, **options)

    return {"open": opening, "pwrite": lambda fd, data, offset: moved}


# Handing over.


@pytest.mark.parametrize(
    ("write", "access"), [(True, os.O_WRONLY), (False, os.O_RDONLY)], ids=["save", "restore"]
)
@pytest.mark.parametrize("direct", [False, True])
def test_each_descriptor_is_an_open_of_its_own_with_exact_flags(
    monitor, qemu, image, write, access, direct
):
    fdset_id = give(monitor, image, write=write, direct=direct)
    received = qemu.fdsets[fdset_id]
    assert [(fd.access_mode, fd.direct) for fd in received] == [
        (access, flag) for flag in ([False, True] if direct else [False])
    ]
    assert {os.fstat(fd.fd).st_ino for fd in received} == {os.fstat(image).st_ino}


def test_the_descriptors_do_not_share_their_flags(monitor, qemu, image):
    """A dup would: QEMU sets O_NONBLOCK and O_DIRECT as it likes."""
    fdset_id = give(monitor, image, direct=True)
    buffered, direct = qemu.fdsets[fdset_id]
    os.set_blocking(buffered.fd, False)
    assert os.get_blocking(direct.fd)
    assert os.get_blocking(image)


def test_the_file_itself_is_passed_whatever_its_name_points_to_now(monitor, qemu, image, tmp_path):
    (tmp_path / "image").rename(tmp_path / "renamed")
    (tmp_path / "image").write_bytes(b"another")
    fdset_id = give(monitor, image)
    assert qemu.fdsets[fdset_id][0].target == str(tmp_path / "renamed")


def test_our_copies_are_closed_again(monitor, image, tmp_path):
    give(monitor, image, direct=True)
    # One is the test's own, two are those that the scripted monitor received.
    assert open_descriptors().count(str(tmp_path / "image")) == 3


def open_descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, by another thread
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def test_the_set_is_taken_back_when_the_second_descriptor_is_refused(monitor, qemu, image):
    give_first = monitor.expect("add-fd", {"opaque": BOOKMARK.text()})
    give_first.returns({"fdset-id": 0, "fd": 9})
    monitor.expect("add-fd", {"fdset-id": 0, "opaque": BOOKMARK.text()}).fails(
        "GenericError", "Too many open files"
    )
    qemu.fdsets[0] = []
    with pytest.raises(QmpCommandError, match="Too many open files"):
        give(monitor, image, direct=True)
    assert qemu.fdsets == {}
    assert monitor.names == ["add-fd", "add-fd", "query-fdsets", "remove-fd"]


def test_a_link_that_breaks_between_the_two_is_reported_as_that(monitor, image):
    monitor.expect("add-fd", {"opaque": BOOKMARK.text()}).returns({"fdset-id": 0, "fd": 9})
    monitor.expect("add-fd", {"fdset-id": 0, "opaque": BOOKMARK.text()}).disconnects()
    with pytest.raises(MonitorLost, match="add-fd"):
        give(monitor, image, direct=True)


def test_an_o_direct_open_that_fails_takes_the_set_back(monitor, qemu, image, monkeypatch):
    monkeypatch.setattr(os, "open", refuse_direct(errno.EINVAL)["open"])
    with pytest.raises(OSError, match="Invalid argument"):
        give(monitor, image, direct=True)
    assert qemu.fdsets == {}


def test_taking_back_removes_the_set_and_no_other(monitor, qemu, image):
    first, second = (give(monitor, image) for _image in range(2))
    with_monitor(monitor.path, lambda session: take_back(session, first))
    assert list(qemu.fdsets) == [second]


def test_taking_back_a_set_that_is_gone_is_fine(monitor):
    with_monitor(monitor.path, lambda session: take_back(session, 5))
    assert monitor.names == ["query-fdsets"]


def test_cancelling_takes_the_set_back(monitor, qemu, image):
    monitor.expect("add-fd", {"opaque": BOOKMARK.text()}).returns({"fdset-id": 0, "fd": 9})
    monitor.expect("add-fd", {"fdset-id": 0, "opaque": BOOKMARK.text()})  # never answered
    qemu.fdsets[0] = []

    async def cancelled(session):
        work = asyncio.ensure_future(hand_over(session, image, BOOKMARK, write=True, direct=True))
        while len(monitor.names) < 2:
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    with_monitor(monitor.path, cancelled)
    assert qemu.fdsets == {}


def test_the_address_names_set_and_offset():
    assert uri(3, 98304) == "file:/dev/fdset/3,offset=98304"


# The proof of O_DIRECT.


@pytest.mark.parametrize("write", [True, False])
def test_a_filesystem_that_does_o_direct_is_not_refused(image, write):
    assert direct_io_refusal(image, OFFSET, write=write) is None


def test_the_proof_writes_only_its_own_page(image):
    direct_io_refusal(image, OFFSET, write=True)
    ones = b"\x01" * OFFSET
    assert os.pread(image, 4 * DIRECT_IO_BYTES, 0) == ones + bytes(DIRECT_IO_BYTES)


def test_the_proof_by_reading_changes_nothing(image):
    direct_io_refusal(image, OFFSET, write=False)
    assert os.pread(image, 4 * DIRECT_IO_BYTES, 0) == b"\x01" * 3 * DIRECT_IO_BYTES


def test_reading_at_the_end_of_the_file_is_no_refusal(image):
    assert direct_io_refusal(image, 3 * DIRECT_IO_BYTES, write=False) is None


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY])
def test_a_filesystem_that_cannot_open_with_o_direct_is_told(image, monkeypatch, error):
    monkeypatch.setattr(os, "open", refuse_direct(error)["open"])
    reason = direct_io_refusal(image, OFFSET, write=True)
    assert reason == f"the filesystem refuses O_DIRECT ({os.strerror(error)})"


def test_a_filesystem_that_opens_but_does_not_write_is_told(image, monkeypatch):
    stub = refuse_direct(moved=512)
    monkeypatch.setattr(os, "open", stub["open"])
    monkeypatch.setattr(os, "pwrite", stub["pwrite"])
    reason = direct_io_refusal(image, OFFSET, write=True)
    assert reason == "the filesystem wrote 512 of 4096 bytes with O_DIRECT"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_another_failure_is_the_stores_and_says_nothing_about_o_direct(image, monkeypatch, error):
    def pwrite(fd, data, offset):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(StoreError, match=os.strerror(error)) as failed:
        direct_io_refusal(image, OFFSET, write=True)
    assert failed.value.facts["errno"] == error


def test_the_proof_leaves_no_descriptor_open(image, tmp_path):
    direct_io_refusal(image, OFFSET, write=True)
    assert open_descriptors().count(str(tmp_path / "image")) == 1
