# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that must not happen: refused with both figures, the image unharmed, or found out."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageInvalid,
    ImageLocked,
    Refused,
    VmfleetError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import LaunchFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    image_info,
    look,
)

MIB = 1 << 20


@pytest.fixture
def saved(tiny_guest, store):
    """A guest that was saved to store/guest.save and is gone; returns the guest and the path."""
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, parallel_channels=2)
    return guest, path


def pages_offset(path, name="pc.ram"):
    (block,) = (b for b in image_info(path)["ram_blocks"] if b["name"] == name)
    return block["pages_offset_bytes"]


def test_one_flipped_byte_is_seen_by_the_guest_itself(saved):
    guest, path = saved
    address = guest.regions.pattern_start_bytes + 0x1234
    with open(path, "r+b") as image:
        offset = pages_offset(path) + address
        (byte,) = os.pread(image.fileno(), 1, offset)
        os.pwrite(image.fileno(), bytes([byte ^ 0x40]), offset)
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    guest.wait_passes(2)
    report = guest.passes[-1]
    assert report.wrong_dwords == 1
    assert report.first_wrong_address == address & ~3


@pytest.mark.parametrize("cut_bytes", [1, 4096, 3 * MIB, 40 * MIB])
def test_a_truncated_image_is_refused_and_the_waiting_qemu_lives(saved, cut_bytes):
    guest, path = saved
    os.truncate(path, path.stat().st_size - cut_bytes)
    guest.start(incoming=True)
    with pytest.raises(ImageInvalid) as refused:
        do_restore(guest.qmp_socket, path, parallel_channels=2)
    assert str(path) in refused.value.message
    assert "offset" in refused.value.message
    assert guest.status() == "inmigrate"


def test_an_image_whose_pages_were_lost_in_a_copy_is_refused(saved):
    guest, path = saved
    start = pages_offset(path) + guest.regions.pattern_start_bytes
    punch = ["fallocate", "--punch-hole", "--offset", str(start), "--length", str(MIB), str(path)]
    subprocess.run(punch, check=True)
    with pytest.raises(ImageInvalid, match="hole"):
        do_restore(guest.qmp_socket, path, check_mode=True)


def test_another_machine_type_is_refused_with_both_names(saved, tiny_guest):
    guest, path = saved
    other = tiny_guest(machine="q35", guest_uuid=guest.uuid)
    other.start(incoming=True)
    with pytest.raises(Refused) as refused:
        do_restore(other.qmp_socket, path)
    assert "pc-i440fx" in refused.value.message
    assert "pc-q35" in refused.value.message
    assert image_info(path)["state"] == "ready"


@pytest.mark.parametrize("kind", [{"image_version": 3}, {"image_format": "raw"}])
@pytest.mark.parametrize("memory_mib", [56, 128])
def test_another_ram_size_is_refused_with_both_figures(tiny_guest, store, kind, memory_mib):
    guest = tiny_guest(memory_mib=64)
    guest.start()
    guest.wait_passes(1)
    do_save(guest.qmp_socket, store / "guest.save", **kind)
    other = tiny_guest(memory_mib=memory_mib, guest_uuid=guest.uuid)
    other.start(incoming=True)
    with pytest.raises(Refused) as refused:
        do_restore(other.qmp_socket, store / "guest.save")
    assert str(64 * MIB) in refused.value.message
    assert str(memory_mib * MIB) in refused.value.message
    assert other.status() == "inmigrate"
    assert image_info(store / "guest.save")["state"] == "ready"


def test_reused_shared_memory_with_old_content_is_refused(tiny_guest, store):
    ram = store / "ram.bin"
    extra = (
        "-object",
        f"memory-backend-file,id=pc.ram,size=64M,mem-path={ram},share=on",
        "-machine",
        "memory-backend=pc.ram",
    )
    guest = tiny_guest(extra=extra)
    guest.start()
    guest.wait_passes(1)
    do_save(guest.qmp_socket, store / "guest.save")
    guest.start(incoming=True)
    with pytest.raises(Refused, match="holds data from offset") as refused:
        do_restore(guest.qmp_socket, store / "guest.save")
    assert str(ram) in refused.value.message
    guest.kill()

    ram.unlink()
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, store / "guest.save")
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_spent_image_is_refused_and_restored_only_by_name(saved):
    guest, path = saved
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    guest.kill()
    guest.start(incoming=True)
    with pytest.raises(Refused, match="its disks have moved on"):
        do_restore(guest.qmp_socket, path)
    assert do_restore(guest.qmp_socket, path, allow=frozenset({"spent"}))["changed"] is True
    assert image_info(path)["state"] == "spent"


def test_of_two_restores_of_one_image_at_once_one_wins(saved, tiny_guest):
    guest, path = saved
    twin = tiny_guest(guest_uuid=guest.uuid)
    twin.disk_path = guest.disk_path
    outcomes = []
    guest.start(incoming=True)
    twin.start(incoming=True)

    def attempt(socket):
        try:
            outcomes.append(do_restore(socket, path)["guest"]["state"])
        except VmfleetError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=attempt, args=(g.qmp_socket,)) for g in (guest, twin)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("running") == 1
    (refusal,) = (outcome for outcome in outcomes if outcome != "running")
    assert isinstance(refusal, (ImageLocked, Refused))
    assert sorted([guest.status(), twin.status()]) == ["inmigrate", "running"]


def test_a_guest_that_was_started_elsewhere_makes_its_image_stale(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    guest.start()
    guest.wait_passes(1)
    with pytest.raises(Refused, match="started elsewhere"):
        do_restore(guest.qmp_socket, path)
    assert guest.status() == "running"


def test_a_qemu_that_does_not_start_is_reported_in_its_own_words(saved):
    guest, path = saved
    argv = (*guest.argv(), "-device", "no-such-device")
    with pytest.raises((LaunchFailed, RestoreFailed)) as failed:
        do_restore(guest.qmp_socket, path, argv=argv)
    assert "no-such-device" in failed.value.message
    assert image_info(path)["state"] == "ready"


def test_a_started_qemu_that_does_not_fit_is_ended_and_the_image_kept(saved, tiny_guest):
    guest, path = saved
    other = tiny_guest(memory_mib=128, guest_uuid=guest.uuid)
    with pytest.raises(Refused, match=str(128 * MIB)):
        do_restore(other.qmp_socket, path, argv=tuple(other.argv()))
    assert not other.alive()
    assert image_info(path)["state"] == "ready"
    guest.start(incoming=True)
    assert do_restore(guest.qmp_socket, path)["guest"]["state"] == "running"


def test_a_device_state_that_does_not_load_is_told_in_qemus_words_and_the_image_kept(
    saved, tiny_guest
):
    guest, path = saved
    shorter = tiny_guest(machine="pc,hpet=off", guest_uuid=guest.uuid)
    shorter.disk_path = guest.disk_path
    with pytest.raises(RestoreFailed) as failed:
        do_restore(shorter.qmp_socket, path, argv=tuple(shorter.argv()))
    assert "hpet" in failed.value.message
    assert not shorter.alive()
    assert image_info(path)["state"] == "ready"


def test_a_failed_load_gives_a_waiting_qemu_its_settings_back(saved, tiny_guest):
    guest, path = saved
    shorter = tiny_guest(machine="pc,hpet=off", guest_uuid=guest.uuid)
    shorter.disk_path = guest.disk_path
    shorter.start(incoming=True)
    before = look(shorter.qmp_socket).offer
    with pytest.raises(RestoreFailed, match="end it and start a new one") as failed:
        do_restore(shorter.qmp_socket, path)
    assert failed.value.facts["guest"]["state"] == "inmigrate"
    assert look(shorter.qmp_socket).offer == before
    assert shorter.execute("query-fdsets") == []


def test_a_spent_image_that_was_restored_by_name_is_recognised_the_second_time(saved):
    guest, path = saved
    for _round in range(2):
        guest.start(incoming=True)
        do_restore(guest.qmp_socket, path, allow=frozenset({"spent"}))
        again = do_restore(guest.qmp_socket, path, allow=frozenset({"spent"}))
        assert again["changed"] is False
        guest.kill()


def test_an_image_that_cannot_be_removed_is_told_beside_a_guest_that_runs(saved, monkeypatch):
    guest, path = saved
    guest.start(incoming=True)

    def refuse(name):
        raise PermissionError(1, "Operation not permitted", name)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RestoreFailed, match="The guest runs, and the image is spent") as failed:
        do_restore(guest.qmp_socket, path, remove_image=True)
    assert failed.value.facts["guest"]["state"] == "running"
    monkeypatch.undo()
    assert failed.value.facts["changed"] is True
    assert guest.status() == "running"


def test_argv_is_refused_while_another_qemu_waits_on_the_socket(saved):
    guest, path = saved
    guest.start(incoming=True)
    with pytest.raises(Refused, match="already waits"):
        do_restore(guest.qmp_socket, path, argv=(*guest.argv(), "-boot", "c"))
    assert guest.status() == "inmigrate"


def test_a_qemu_that_waits_with_the_given_argv_is_the_one_to_use(saved):
    guest, path = saved
    guest.start(incoming=True)
    pid = guest.pid
    result = do_restore(guest.qmp_socket, path, argv=tuple(guest.argv()))
    assert result["guest"]["pid"] == pid
    guest.wait_passes(2)


def test_o_direct_refused_by_the_filesystem_is_an_error_before_anything_is_loaded(
    saved, ramfs_store
):
    guest, path = saved
    copy = ramfs_store / "guest.save"
    shutil.copyfile(path, copy)
    guest.start(incoming=True)
    with pytest.raises(Refused, match="O_DIRECT"):
        do_restore(guest.qmp_socket, copy, bypass_cache=True)
    assert guest.status() == "inmigrate"
    assert do_restore(guest.qmp_socket, copy)["changed"] is True


def test_without_a_qemu_a_record_or_argv_the_error_says_how_to_get_one(saved):
    guest, path = saved
    with path.open("r+b") as image:
        os.pwrite(image.fileno(), bytes(64), image.read(MIB).index(b"VMFLEET-RECORD"))
    with pytest.raises(Refused, match="-incoming defer -S"):
        do_restore(guest.qmp_socket, path)


def test_a_missing_image_is_named(tiny_guest, store):
    with pytest.raises(Refused, match=r"There is no image at .*gone\.save"):
        do_restore(store / "no.qmp", store / "gone.save")


def test_qemus_settings_are_as_before_after_a_restore(saved):
    guest, path = saved
    guest.start(incoming=True)
    before = guest.execute("query-migrate-capabilities"), guest.execute("query-migrate-parameters")
    do_restore(guest.qmp_socket, path, parallel_channels=4, bypass_cache=True)
    assert before == (
        guest.execute("query-migrate-capabilities"),
        guest.execute("query-migrate-parameters"),
    )
    assert guest.execute("query-fdsets") == []
