# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal tells whether an image would load, and leaves no trace."""

from __future__ import annotations

import glob
import hashlib
import os
import subprocess
import tempfile

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import bring_back, do_save, image_info

KINDS = [{}, {"image_format": "sparse"}, {"image_format": "raw"}, {"image_format": "gzip"}]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def traces(store):
    """What a rehearsal must leave as it was: calls give it back, to be compared."""

    def look(path, guest, *more):
        files = [path, guest.disk_path, *more]
        scratch = glob.glob(os.path.join(tempfile.gettempdir(), "vmfleet-rehearsal-*"))
        status = [(digest(file), os.stat(file).st_mtime_ns) for file in files]
        return status, scratch, sorted(os.listdir(store)), guest._pids()

    return look


@pytest.fixture
def ran(tiny_guest, tmp_path):
    """A guest that checked its memory once, with a disk that it can write to."""

    def start(*extra, image_format="qcow2"):
        disk = tmp_path / "data"
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, disk, "1M"], check=True)
        guest = tiny_guest(
            extra=(
                *("-drive", f"file={disk},format={image_format},if=none,id=data"),
                *("-device", "virtio-blk-pci,drive=data,addr=0x10"),
                *("-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22"),
                *("-device", "virtio-net-pci,netdev=net0,addr=0x11"),
                *extra,
            )
        ).start()
        guest.wait_passes(1)
        return guest, disk

    return start


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.get("image_format", "version 3"))
def test_an_image_that_would_load_is_told_so_and_can_be_restored_afterwards(
    ran, store, traces, kind
):
    guest, disk = ran()
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, **kind)
    before = traces(path, guest, disk)
    foretold = bring_back(path, check_mode=True, rehearse=True)
    assert traces(path, guest, disk) == before
    result = bring_back(path, rehearse=True)
    assert traces(path, guest, disk) == before
    assert (result["changed"], result["plan"]["action"]) == (False, "rehearse")
    assert "it loads" in result["msg"]
    assert result["migration"]["total_seconds"] > 0
    assert result["actions"][-1] == "ended the throw-away QEMU"
    assert foretold["diff"] == result["diff"]
    bring_back(path)
    guest.wait_passes(1)
    assert guest.mismatches == []


def test_the_guest_may_still_be_held_by_the_qemu_it_was_saved_from(ran, store, traces):
    guest, disk = ran()
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, guest_state="paused")
    before = traces(path, guest, disk)
    bring_back(path, rehearse=True)
    assert traces(path, guest, disk) == before
    assert guest.status() == "postmigrate"


def test_an_image_that_would_not_load_is_told_in_qemus_words(ran, store, traces):
    guest, disk = ran()
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    before = traces(path, guest, disk)
    argv = [*guest.argv()]
    argv[argv.index("-machine") + 1] = "pc,hpet=off"
    with pytest.raises(RestoreFailed) as failed:
        bring_back(path, rehearse=True, argv=tuple(argv))
    assert "hpet" in failed.value.message
    assert "unharmed and ready" in failed.value.message
    assert traces(path, guest, disk) == before


def test_a_qemu_that_is_another_guest_is_told_before_anything_is_loaded(ran, store):
    guest, _disk = ran()
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    argv = (*guest.argv(), "-device", "virtio-rng-pci,addr=0x12")
    with pytest.raises(Refused, match="QEMU has the device virtio-rng-pci"):
        bring_back(path, rehearse=True, argv=argv)


def test_what_a_restore_would_refuse_a_rehearsal_refuses_too(ran, store):
    guest, disk = ran(image_format="raw")
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    with open(disk, "r+b") as file:
        file.write(b"x")
    with pytest.raises(Refused, match="mtime_ns"):
        bring_back(path, rehearse=True)


def test_an_image_without_a_record_needs_argv(ran, store):
    guest, _disk = ran()
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    with open(path, "r+b") as image:
        offset = image.read(1 << 20).index(b"VMFLEET-RECORD")
        os.pwrite(image.fileno(), bytes(64), offset)
    with pytest.raises(Refused, match="nothing to rehearse"):
        bring_back(path, rehearse=True, qmp_socket=guest.qmp_socket)
    bring_back(path, rehearse=True, qmp_socket=guest.qmp_socket, argv=tuple(guest.argv()))
    assert image_info(path)["state"] == "ready"
