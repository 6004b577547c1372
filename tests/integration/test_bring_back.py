# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image alone brings its guest back, as it was run: words, user, limits, directory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    goes_on,
    image_info,
    look,
    save_away,
)

NOBODY = 65534


def test_the_path_alone_brings_a_guest_back(ran, store):
    guest = ran()
    path = save_away(guest, store)
    result = bring_back(path)
    assert result["plan"]["launch"] == "recorded"
    assert set(result["plan"]["checks"].values()) == {"yes"}
    assert result["guest"]["pid"] == guest.pid
    assert goes_on(guest)
    assert image_info(path)["state"] == "spent"


def test_a_second_run_changes_nothing(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path)
    pid = guest.pid
    again = bring_back(path)
    assert (again["changed"], again["guest"]["state"]) == (False, "running")
    assert guest.pid == pid


def test_it_can_be_saved_and_brought_back_over_and_over(ran, store):
    guest = ran()
    for _round in range(3):
        bring_back(save_away(guest, store))
        assert goes_on(guest)


def test_check_mode_answers_what_image_and_host_can_tell_and_starts_nothing(ran, store):
    guest = ran()
    path = save_away(guest, store)
    foretold = bring_back(path, check_mode=True)
    assert not guest.alive()
    assert foretold["changed"] is True
    assert foretold["plan"]["launch"] == "recorded"
    assert foretold["plan"]["checks"] == {
        "source_gone": "yes",
        "disks_unchanged": "yes",
        "recorded_argv_trusted": "yes",
        "program_runs": "yes",
        "addresses_free": "yes",
        "servers_answer": "yes",
        "memory_empty": "yes",
    }
    assert foretold["plan"]["same_guest"] == foretold["plan"]["parallel_channels"] == "unknown"
    assert bring_back(path)["diff"] == foretold["diff"]


def test_a_machine_type_by_its_alias_is_pinned_to_the_one_that_was_saved(ran, store):
    guest = ran(machine="q35")
    machine = look(guest.qmp_socket).machine_type
    assert machine.startswith("pc-q35-")
    path = save_away(guest, store)
    result = bring_back(path)
    words = Path(f"/proc/{guest.pid}/cmdline").read_bytes().split(b"\0")
    assert machine.encode() in b" ".join(words)
    assert any(machine in action for action in result["actions"])
    assert goes_on(guest)


def test_a_guest_that_was_daemonized_comes_back_with_its_pidfile_and_relative_disks(
    tiny_guest, store, tmp_path
):
    guest = tiny_guest(extra=("-daemonize", "-pidfile", "pid"))
    shutil.copy(guest.disk_path, tmp_path / "disk.img")
    guest.disk_path = Path("disk.img")
    started = {"cwd": tmp_path, "env": {**os.environ, "PWD": str(tmp_path)}}
    subprocess.run(guest.argv(), check=True, stdin=subprocess.DEVNULL, **started)
    guest.wait_passes(1)
    path = save_away(guest, store)
    result = bring_back(path)
    assert int((tmp_path / "pid").read_text()) == guest.pid == result["guest"]["pid"]
    assert goes_on(guest)


def test_a_socket_that_blocks_until_somebody_connects_blocks_no_restore(
    tiny_guest, store, tmp_path
):
    console = tmp_path / "console"
    guest = tiny_guest(extra=("-chardev", f"socket,id=c0,path={console},server=on"))
    child = subprocess.Popen(guest.argv(), stdin=subprocess.DEVNULL)
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(str(console)) != 0:
            assert child.poll() is None
            time.sleep(0.05)
        guest.wait_passes(1)
        path = save_away(guest, store)
    child.wait(10)
    assert any("wait=off" in action for action in bring_back(path)["actions"])
    assert goes_on(guest)


def test_directory_umask_and_limits_are_those_of_before(tiny_guest, store, tmp_path):
    (tmp_path / "cwd").mkdir()
    shutil.copy(tiny_guest().disk_path, tmp_path / "cwd" / "disk.img")
    guest = tiny_guest()
    guest.disk_path = Path("disk.img")

    def prepare():
        os.umask(0o27)
        resource.setrlimit(resource.RLIMIT_NOFILE, (789, 1234))

    guest.run(
        guest.argv(),
        cwd=tmp_path / "cwd",
        preexec_fn=prepare,
        env={**os.environ, "TZ": "Asia/Tokyo"},
    ).wait_passes(1)
    limits = Path(f"/proc/{guest.pid}/limits").read_text()
    assert "1234 " in limits
    path = save_away(guest, store)
    bring_back(path)
    proc = Path(f"/proc/{guest.pid}")
    assert os.readlink(proc / "cwd") == str(tmp_path / "cwd")
    assert "Umask:\t0027" in (proc / "status").read_text()
    assert b"TZ=Asia/Tokyo" in (proc / "environ").read_bytes().split(b"\0")
    assert (proc / "limits").read_text() == limits
    assert goes_on(guest)


def test_a_guest_of_an_ordinary_user_never_comes_back_as_root(ran_by_nobody, store):
    guest = ran_by_nobody
    bring_back(save_away(guest, store))
    status = Path(f"/proc/{guest.pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
    assert f"Gid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
    assert goes_on(guest)


def test_the_disk_of_a_pmem_device_is_no_ram_and_stays_as_it_is(ran, store, tmp_path):
    disk = tmp_path / "pmem"
    disk.write_bytes(b"precious".ljust(16 << 20, b"\0"))
    guest = ran(
        extra=(
            *("-m", "size=64M,slots=2,maxmem=1G"),
            *("-object", f"memory-backend-file,id=pm,share=on,mem-path={disk},size=16M"),
            *("-device", "virtio-pmem-pci,memdev=pm,addr=0x12"),
        )
    )
    path = save_away(guest, store)
    for reset in (False, True):
        bring_back(path, reset_shared_memory=reset)
        assert goes_on(guest)
        assert disk.read_bytes().startswith(b"precious")
        path = save_away(guest, store)


def test_memory_files_of_another_guest_are_not_emptied(ran, tiny_guest, store, tmp_path):
    path = save_away(ran(), store)
    memory = tmp_path / "memory"
    other = tiny_guest(
        extra=(
            *("-object", f"memory-backend-file,id=pc.ram,share=on,mem-path={memory},size=64M"),
            *("-machine", "memory-backend=pc.ram"),
        )
    )
    other.start(incoming=True)
    with memory.open("r+b") as file:
        file.write(b"its RAM")
    with pytest.raises(Refused, match="the QEMU has UUID"):
        bring_back(path, qmp_socket=other.qmp_socket, reset_shared_memory=True)
    assert memory.read_bytes().startswith(b"its RAM")


def test_an_image_that_others_could_write_does_not_choose_the_qemu_it_is_loaded_into(ran, store):
    guest = ran()
    path = save_away(guest, store)
    store.chmod(0o777)
    guest.start(incoming=True)
    with pytest.raises(Refused, match="somebody else could have written it"):
        bring_back(path)
    bring_back(path, qmp_socket=guest.qmp_socket)
    assert goes_on(guest)


def test_a_device_that_was_unplugged_while_the_guest_ran_needs_words_without_it(ran, store):
    guest = ran(extra=("-device", "usb-ehci,id=e", "-device", "usb-tablet,bus=e.0,id=tab"))
    guest.execute("device_del", {"id": "tab"})
    path = save_away(guest, store)
    with pytest.raises(Refused, match=r"usb-tablet tab.*Give argv with what the guest had"):
        bring_back(path)
    bring_back(path, argv=tuple(guest.argv()[:-2]))
    assert goes_on(guest)


def test_words_that_are_given_take_the_place_of_the_recorded_ones(ran, store):
    guest = ran()
    path = save_away(guest, store)
    result = bring_back(path, argv=(*guest.argv(), "-no-shutdown"))
    assert result["plan"]["launch"] == "given"
    assert b"-no-shutdown" in Path(f"/proc/{guest.pid}/cmdline").read_bytes()


def test_an_image_whose_record_was_wiped_says_what_to_give(ran, store):
    guest = ran()
    path = save_away(guest, store)
    with open(path, "r+b") as image:
        offset = image.read(1 << 20).index(b"VMFLEET-RECORD")
        os.pwrite(image.fileno(), bytes(64), offset)
    with pytest.raises(Refused, match="Give qmp_socket"):
        bring_back(path)
    with pytest.raises(Refused, match="virsh save-image-define wiped its record"):
        bring_back(path, qmp_socket=guest.qmp_socket)
    bring_back(path, qmp_socket=guest.qmp_socket, argv=tuple(guest.argv()))
    assert goes_on(guest)


def test_the_record_tells_nobody_else_how_the_guest_was_run(ran, store):
    guest = ran(extra=("-object", "secret,id=s0,data=hunter2hunter2"))
    path = save_away(guest, store)
    assert b"hunter2hunter2" in path.read_bytes()[: 1 << 20]
    shown = json.dumps([image_info(path), bring_back(path, check_mode=True), bring_back(path)])
    assert "hunter2hunter2" not in shown
    assert goes_on(guest)
