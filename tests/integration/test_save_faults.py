# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves that cannot succeed: the guest goes on as before, and the store is as before."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageLocked,
    MonitorError,
    Refused,
    VmfleetError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _steps
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    image_info,
    look,
)

SLOW = 4 << 20  # bytes per second: a save of 16 MiB takes four seconds


@pytest.fixture
def guest(tiny_guest):
    """A guest that has checked its memory once, with 16 MiB of pattern."""
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    return guest


def assert_lives_on(guest, before, store):
    """Running as before, QEMU's settings as before, memory sound, nothing left in the store."""
    assert look(guest.qmp_socket) == before
    assert list(store.iterdir()) == []
    guest.wait_passes(2)
    assert guest.mismatches == []
    assert guest.execute("query-fdsets") == []


@pytest.mark.parametrize("bypass_cache", [False, True])
@pytest.mark.parametrize("kind", [{"image_version": 3}, {"image_format": "raw"}])
def test_a_full_disk_gives_qemus_words_and_the_guest_goes_on(
    guest, small_store, kind, bypass_cache
):
    if kind == {"image_format": "raw"} and bypass_cache:
        kind = dict(kind, guest_state="paused")
        bypass_cache = None
    with pytest.raises(SaveFailed) as failed:
        do_save(guest.qmp_socket, small_store / "guest.save", bypass_cache=bypass_cache, **kind)
    assert "No space left on device" in failed.value.message
    assert "running as before" in failed.value.message
    assert failed.value.facts["guest"]["state"] == "running"
    assert list(small_store.iterdir()) == []
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_after_a_full_disk_the_next_save_succeeds(guest, small_store, store):
    with pytest.raises(SaveFailed):
        do_save(guest.qmp_socket, small_store / "guest.save")
    assert do_save(guest.qmp_socket, store / "guest.save")["changed"] is True


def test_o_direct_refused_by_the_filesystem_is_an_error_before_qemu_hears_of_it(guest, ramfs_store):
    before = look(guest.qmp_socket)
    with pytest.raises(SaveFailed, match="O_DIRECT"):
        do_save(guest.qmp_socket, ramfs_store / "guest.save", bypass_cache=True)
    assert_lives_on(guest, before, ramfs_store)


def test_a_filesystem_without_o_direct_is_fine_for_a_buffered_save(guest, ramfs_store):
    assert do_save(guest.qmp_socket, ramfs_store / "guest.save")["changed"] is True


def test_a_timeout_cancels_the_save_and_the_guest_goes_on(guest, store):
    before = look(guest.qmp_socket)
    with pytest.raises(SaveFailed) as failed:
        do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=SLOW, timeout_seconds=1)
    assert "timeout of 1 s" in failed.value.message
    assert failed.value.facts["step"] == "writing the guest's state"
    assert look(guest.qmp_socket).offer == before.offer
    assert guest.status() == "running"
    assert list(store.iterdir()) == []
    guest.wait_passes(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_save_and_the_guest_goes_on(guest, store, number):
    timer = threading.Timer(1, os.kill, (os.getpid(), number))
    timer.start()
    with pytest.raises(SaveFailed, match="interrupted by a signal"):
        do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=SLOW, signals=True)
    timer.join()
    assert guest.status() == "running"
    assert list(store.iterdir()) == []


def test_a_guest_that_was_paused_is_paused_again_after_a_failed_save(guest, small_store):
    guest.execute("stop")
    with pytest.raises(SaveFailed, match="paused as before"):
        do_save(guest.qmp_socket, small_store / "guest.save")
    assert guest.status() == "paused"


@pytest.mark.full
def test_a_second_client_on_the_monitor_is_named_as_the_likely_cause(guest, store):
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as holder:
        holder.connect(guest.qmp_socket)
        assert b"QMP" in holder.recv(65536)
        with pytest.raises(MonitorError, match="another client"):
            do_save(guest.qmp_socket, store / "guest.save")
    assert time.monotonic() - began < 30
    assert guest.status() == "running"
    assert list(store.iterdir()) == []


def test_a_qemu_that_is_killed_during_the_save_is_reported_as_crashed_never_as_saved(guest, store):
    timer = threading.Timer(1, os.kill, (guest.pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(SaveFailed, match="must be started anew") as failed:
        do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=SLOW)
    timer.join()
    assert failed.value.facts["guest"]["state"] == "crashed"
    assert list(store.iterdir()) == []


def test_two_saves_into_one_image_at_once_are_refused_by_the_lock(guest, tiny_guest, store):
    other = tiny_guest()
    other.start()
    errors = []

    def second():
        try:
            do_save(other.qmp_socket, store / "guest.save")
        except VmfleetError as exc:
            errors.append(exc)

    timer = threading.Timer(1, second)
    timer.start()
    do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=SLOW)
    timer.join()
    assert isinstance(errors[0], ImageLocked)
    assert str(os.getpid()) in errors[0].message
    assert other.status() == "running"


def test_another_guests_image_and_files_that_are_no_images_are_never_replaced(
    guest, tiny_guest, store
):
    do_save(guest.qmp_socket, store / "guest.save")
    content = (store / "guest.save").read_bytes()
    other = tiny_guest()
    other.start()
    with pytest.raises(Refused, match="not this guest"):
        do_save(other.qmp_socket, store / "guest.save")
    assert (store / "guest.save").read_bytes() == content

    (store / "notes.txt").write_text("not an image")
    with pytest.raises(Refused, match="not a save image"):
        do_save(other.qmp_socket, store / "notes.txt", overwrite=True)
    assert (store / "notes.txt").read_text() == "not an image"
    assert other.status() == "running"


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "long name", "no directory"])
def test_a_target_that_cannot_become_an_image_is_refused_in_check_mode_too(guest, store, kind):
    path = store / "guest.save"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("elsewhere")
    elif kind == "long name":
        path = store / ("x" * 250)
    else:
        path = store / "missing" / "guest.save"
    before = sorted(os.listdir(store))
    for check_mode in (True, False):
        with pytest.raises(Refused):
            do_save(guest.qmp_socket, path, check_mode=check_mode)
    assert sorted(os.listdir(store)) == before
    assert guest.status() == "running"


def test_a_failed_save_keeps_the_older_image_of_the_guest(guest, store):
    do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    old = (store / "guest.save").read_bytes()
    with pytest.raises(SaveFailed):
        do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=SLOW, timeout_seconds=1)
    assert (store / "guest.save").read_bytes() == old
    assert do_save(guest.qmp_socket, store / "guest.save")["changed"] is True


def test_a_monitor_where_nothing_listens_is_a_failure_unless_the_guest_was_saved(store):
    with pytest.raises(Refused, match="Nothing listens"):
        do_save(store / "no.qmp", store / "guest.save")


def test_a_page_that_was_changed_behind_qemus_back_is_found_by_content_verification(
    guest, store, monkeypatch
):
    def flip_a_byte_then_walk(fd, path):
        structure = verify_structure(fd, path)
        block = structure.head.ram_blocks[0]
        offset = block.pages_offset_bytes + guest.regions.pattern_start_bytes + 12345
        (byte,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte ^ 1]), offset)
        return structure

    monkeypatch.setattr(_steps, "verify_structure", flip_a_byte_then_walk)
    with pytest.raises(SaveFailed, match=r"RAM block pc\.ram differs from the guest's RAM"):
        do_save(guest.qmp_socket, store / "guest.save", verify="content")
    assert guest.status() == "running"
    assert list(store.iterdir()) == []


def test_a_stream_without_device_description_is_refused_until_that_is_switched_off(
    tiny_guest, store
):
    guest = tiny_guest(machine="pc,suppress-vmdesc=on")
    guest.start()
    guest.wait_passes(1)
    before = look(guest.qmp_socket)
    for check_mode in (True, False):
        with pytest.raises(Refused, match="suppress-vmdesc"):
            do_save(guest.qmp_socket, store / "guest.save", check_mode=check_mode)
    assert_lives_on(guest, before, store)

    off = {"path": "/machine", "property": "suppress-vmdesc", "value": False}
    guest.execute("qom-set", off)
    do_save(guest.qmp_socket, store / "guest.save")
    guest.start(incoming=True)  # with the property on again, which a load does not mind
    do_restore(guest.qmp_socket, store / "guest.save")
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_capabilities_somebody_left_on_are_put_back_as_they_were(guest, store):
    left_on = [{"capability": "pause-before-switchover", "state": True}]
    guest.execute("migrate-set-capabilities", {"capabilities": left_on})
    guest.execute("migrate-set-parameters", {"direct-io": True})
    before = look(guest.qmp_socket)
    do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    after = look(guest.qmp_socket)
    assert after.offer == before.offer
    assert image_info(store / "guest.save")["state"] == "spent"


def test_an_image_for_inspection_cannot_be_restored(guest, store):
    do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    guest.kill()
    guest.start(incoming=True)
    with pytest.raises(Refused, match="spent"):
        do_restore(guest.qmp_socket, store / "guest.save")
    assert guest.status() == "inmigrate"


def test_the_monitor_is_free_again_after_every_kind_of_end(guest, store):
    do_save(guest.qmp_socket, store / "guest.save", check_mode=True)
    with pytest.raises(Refused):
        do_save(guest.qmp_socket, store / "guest.save", name="somebody-else")

    async def connect():
        monitor = await Monitor.connect(str(guest.qmp_socket), 2)
        await monitor.close()

    asyncio.run(connect())
