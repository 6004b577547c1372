# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that would lose something: what is lost without the refusal, and the refusal.

Each test shows both. The loss is provoked by hand, or by the option that overrides the refusal.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageLocked,
    Refused,
    VmfleetError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefix import (
    read_prefix,
    with_record,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_save,
    image_info,
)
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

NOBODY = 65534
BLOCK = "0 64k"


class GuestWithDisk:
    """A tiny guest and a disk, which QEMU writes to in its place (HMP qemu-io)."""

    def __init__(self, guest, disk):
        self.guest, self.disk = guest, disk

    def write(self, byte):
        """Fill the first block of the disk, as the guest would."""
        for command in (f"write -P {byte} {BLOCK}", "flush"):
            self.guest.hmp(f'qemu-io data "{command}"')

    def reads(self, byte):
        """Whether the guest finds this in the first block."""
        (drive,) = (d for d in self.guest.execute("query-block") if d["device"] == "data")
        image = drive["inserted"]["image"]
        return begins_with(image["filename"], image["format"], byte)


def begins_with(path, image_format, byte):
    """Whether the first block of an image, its backing files included, is filled with this."""
    read = ["qemu-io", "-r", "-U", "-f", image_format, "-c", f"read -P {byte} {BLOCK}", str(path)]
    said = subprocess.run(read, check=False, capture_output=True, text=True).stdout
    assert "read 65536/65536" in said
    return "Pattern verification failed" not in said


def disk_arguments(disk, image_format):
    return (
        *("-drive", f"file={disk},format={image_format},if=none,id=data"),
        *("-device", "virtio-blk-pci,drive=data,addr=0x10"),
    )


@pytest.fixture
def with_disk(tiny_guest, tmp_path):
    """A running guest with a disk of ``image_format``."""

    def make(image_format="qcow2", extra=()):
        disk = tmp_path / f"data.{image_format}"
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, disk, "1M"], check=True)
        guest = tiny_guest(extra=(*disk_arguments(disk, image_format), *extra))
        guest.start()
        guest.wait_passes(1)
        return GuestWithDisk(guest, disk)

    return make


def save(guest, store, **options):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, **options)
    return path


def refuses(path, *words, **options):
    """The restore is refused in these words, in check mode and really; the image stays as it is."""
    before = image_info(path)["state"]
    for check_mode in (True, False):
        with pytest.raises(Refused) as refused:
            bring_back(path, check_mode=check_mode, **options)
        for word in words:
            assert word in refused.value.message
    assert image_info(path)["state"] == before


# Still alive?


def test_a_second_qemu_would_steal_the_monitor_of_the_first(tiny_guest, store):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = save(guest, store, guest_state="paused")
    first = guest.pid
    assert guest.status() == "postmigrate"

    refuses(path, f"process {first}", "postmigrate")
    # Not even where its monitor cannot be found any more.
    os.rename(guest.qmp_socket, guest.qmp_socket + ".away")
    refuses(path, f"saved from, process {first}, still lives")
    refuses(path, f"process {first}", argv=tuple(guest.argv()))
    os.rename(guest.qmp_socket + ".away", guest.qmp_socket)
    refuses(path, f"process {first}", qmp_socket=str(guest.directory / "other"))

    # QEMU itself takes the path over without a word, and nobody reaches the first any more.
    thief = subprocess.Popen(guest.argv(), stdin=subprocess.DEVNULL)
    try:
        guest._wait(lambda: guest.status() == "running", 10, "answer")
    finally:
        thief.kill()
        thief.wait()
    with pytest.raises(AssertionError, match="no answer"):
        guest.status()
    assert Path(f"/proc/{first}").exists()


@pytest.mark.parametrize("kind", ["socket", "port", "pidfile"])
def test_what_somebody_else_holds_by_now_is_not_taken_away(tiny_guest, store, tmp_path, kind):
    console, pidfile = tmp_path / "console", tmp_path / "pid"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    extra = {
        "socket": ("-chardev", f"socket,id=c0,path={console},server=on,wait=off"),
        "port": ("-chardev", f"socket,id=c0,host=127.0.0.1,port={port},server=on,wait=off"),
        "pidfile": ("-pidfile", str(pidfile)),
    }[kind]
    guest = tiny_guest(extra=extra).start()
    guest.wait_passes(1)
    path = save(guest, store)
    guest.wait_gone()
    words = {"socket": str(console), "port": str(port), "pidfile": str(pidfile)}[kind]
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            console.unlink(missing_ok=True)
            holder = stack.enter_context(socket.socket(socket.AF_UNIX))
            holder.bind(str(console))
            holder.listen()
        elif kind == "port":
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        else:
            other = tiny_guest(extra=extra).start()
            stack.callback(other.kill)
        refuses(path, words)
        assert not guest.alive()
        if kind == "socket":
            # Without the refusal: QEMU removes the other's socket from the file system.
            bound = console.stat().st_ino
            guest.start(incoming=True)
            assert console.stat().st_ino != bound
            guest.kill()
    bring_back(path)
    guest.wait_passes(1)


def test_a_server_that_the_guest_is_a_client_of_must_listen_first(tiny_guest, store, tmp_path):
    backend = tmp_path / "backend"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(backend))
        server.listen()
        guest = tiny_guest(extra=("-chardev", f"socket,id=c0,path={backend}")).start()
        guest.wait_passes(1)
        path = save(guest, store)
        guest.wait_gone()
    refuses(path, str(backend), "Start that first")
    backend.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(backend))
        server.listen()
        bring_back(path)
        guest.wait_passes(1)


def test_open_files_that_a_starter_handed_over_are_gone_with_it(tiny_guest, store, tmp_path):
    guest = tiny_guest()
    console = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(console))
        server.listen()
        number = server.fileno()
        guest.extra = ("-chardev", f"socket,id=c0,fd={number},server=on,wait=off")
        guest.run(guest.argv(), pass_fds=[number]).wait_passes(1)
    path = save(guest, store)
    refuses(path, "cannot be used again", "-chardev c0", "Give argv")

    # Without the refusal QEMU does not even start.
    assert subprocess.run(guest.argv(), check=False, capture_output=True).returncode != 0

    instead = f"socket,id=c0,path={console},server=on,wait=off"
    argv = [instead if word.startswith("socket,id=c0") else word for word in guest.argv()]
    bring_back(path, argv=tuple(argv))
    guest.wait_passes(1)


# Same guest?


def test_after_a_snapshot_the_old_command_line_would_run_the_guest_on_its_old_disk(
    with_disk, store, tmp_path
):
    on = with_disk()
    overlay = tmp_path / "overlay.qcow2"
    on.guest.execute(
        "blockdev-snapshot-sync",
        {"device": "data", "snapshot-file": str(overlay), "format": "qcow2"},
    )
    on.write(0xAB)
    path = save(on.guest, store)

    with pytest.raises(Refused) as refused:
        bring_back(path)
    assert f"was {overlay} (qcow2" in refused.value.message
    assert f"is {on.disk} (qcow2" in refused.value.message
    assert not on.guest.alive()

    # The way: a command line with the disk that the guest had.
    argv = tuple(word.replace(str(on.disk), str(overlay)) for word in on.guest.argv())
    kept = shutil.copy(path, store / "kept.save")
    bring_back(path, argv=argv)
    on.guest.wait_passes(1)
    assert on.reads(0xAB)
    on.guest.kill()

    # Without the refusal the guest reads what was there before the snapshot.
    bring_back(kept, allow=frozenset({"changed_disks"}))
    on.guest.wait_passes(1)
    assert not on.reads(0xAB)


def test_a_device_that_was_plugged_in_later_is_missing_from_the_old_command_line(tiny_guest, store):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    guest.execute("device_add", {"driver": "virtio-rng-pci", "id": "rng0", "addr": "8"})
    path = save(guest, store)
    with pytest.raises(Refused, match=r"had the device virtio-rng-pci rng0 \(on pci.0, addr 08.0"):
        bring_back(path)
    assert not guest.alive()
    bring_back(path, argv=(*guest.argv(), "-device", "virtio-rng-pci,addr=8"))
    guest.wait_passes(1)


def test_qemu_itself_accepts_a_device_too_many(tiny_guest, store):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = save(guest, store)
    more = (*guest.argv(), "-device", "virtio-rng-pci,addr=8")
    refuses_really = pytest.raises(Refused, match="QEMU has the device virtio-rng-pci")
    with refuses_really:
        bring_back(path, argv=more)
    assert not guest.alive()


def test_what_lives_in_the_process_alone_refuses_the_save(with_disk, store):
    on = with_disk(extra=("-snapshot",))
    with pytest.raises(Refused, match="no longer exists"):
        save(on.guest, store)
    assert on.guest.status() == "running"
    # What is written goes with the process.
    on.write(0xAB)
    on.guest.kill()
    assert not begins_with(on.disk, "qcow2", 0xAB)


# Same disks?


def test_a_disk_that_changed_would_meet_a_guest_that_does_not_know_it(with_disk, store):
    on = with_disk("raw")
    on.write(0xAB)
    path = save(on.guest, store)
    with open(on.disk, "r+b") as disk:
        disk.write(b"somebody else's")
    refuses(path, str(on.disk), "mtime_ns", "allow changed_disks")
    assert not on.guest.alive()

    result = bring_back(path, allow=frozenset({"changed_disks"}))
    assert result["plan"]["checks"]["disks_unchanged"] == "allowed"
    on.guest.wait_passes(1)
    assert not on.reads(0xAB)


def test_a_disk_that_was_replaced_or_is_gone_is_told(with_disk, store):
    on = with_disk("raw")
    path = save(on.guest, store)
    kept = on.disk.with_name("kept.raw")
    os.rename(on.disk, kept)
    refuses(path, str(on.disk))
    shutil.copy2(kept, on.disk)
    refuses(path, str(on.disk), "inode")
    os.replace(kept, on.disk)
    bring_back(path)
    on.guest.wait_passes(1)


# One life


def test_a_second_restore_would_run_the_memory_of_before_on_the_disk_of_after(with_disk, store):
    on = with_disk("raw")
    on.write(1)
    assert on.reads(1)
    path = save(on.guest, store)
    copy = shutil.copy(path, store / "copy.save")
    bring_back(path)
    on.write(2)
    on.guest.kill()
    with pytest.raises(Refused, match="that QEMU has ended since"):
        bring_back(path)
    # A copy of the image knows nothing of that, but the disk does.
    refuses(copy, str(on.disk))
    bring_back(copy, allow=frozenset({"changed_disks"}))
    assert on.reads(2)  # the guest of the copy wrote 1 there, and nothing else


def test_of_two_restores_at_once_one_starts_the_guest(tiny_guest, store):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = save(guest, store)
    outcomes = []

    def attempt():
        try:
            outcomes.append(bring_back(path)["changed"])
        except VmfleetError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=attempt) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1
    for outcome in outcomes:
        assert outcome in (True, False) or isinstance(outcome, (ImageLocked, Refused))
    assert len(guest._pids()) == 1
    guest.wait_passes(1)


def test_a_crash_between_mark_and_run_is_explained_by_the_next_run(with_disk, store):
    on = with_disk("raw")
    on.write(0xAB)
    path = save(on.guest, store)
    struck = run_stricken(
        "restore",
        {"path": str(path), "qmp_socket": on.guest.qmp_socket},
        Blow("_restore._load.mark_spent"),
    )
    assert struck.killed
    on.guest.kill()  # the host went down
    refuses(path, "is spent", "never seen to run it", "exactly as they were", "allow set to spent")
    bring_back(path, allow=frozenset({"spent"}))
    on.guest.wait_passes(1)
    assert on.guest.mismatches == []
    assert on.reads(0xAB)


# Trust


def forge(path, program):
    """Put another command line into the record, as somebody who can write the image could."""
    fd = os.open(path, os.O_RDWR)
    try:
        prefix = read_prefix(fd, str(path))
        record = prefix.record
        assert record is not None
        record["launch"]["argv"] = [str(program)]
        record["launch"]["executable"] = str(program)
        beginning = os.pread(fd, prefix.header.data_offset_bytes, 0)
        os.pwrite(fd, with_record(beginning, record), 0)
    finally:
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("weakness", ["owner", "mode", "directory"])
def test_a_command_line_that_somebody_else_could_have_written_is_not_run(
    tiny_guest, store, tmp_path, weakness
):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = save(guest, store)
    trap, caught = tmp_path / "trap", tmp_path / "caught"
    trap.write_text(f"#!/bin/sh\ntouch {caught}\n")
    trap.chmod(0o755)
    forge(path, trap)
    if weakness == "owner":
        os.chown(path, NOBODY, NOBODY)
    elif weakness == "mode":
        path.chmod(0o660)
    else:
        store.chmod(0o777)
    refuses(path, "somebody else could have written it", "trust_recorded_argv")
    assert not caught.exists()

    with pytest.raises(VmfleetError):
        bring_back(path, trust_recorded_argv=True)
    assert caught.exists()


def test_what_qemu_says_of_a_secret_is_not_passed_on(tiny_guest, store):
    guest = tiny_guest(extra=("-object", "secret,id=s0,data=hunter2hunter2")).start()
    guest.wait_passes(1)
    path = save(guest, store)
    argv = (*guest.argv(), "-object", "secret,id=s0,data=hunter2hunter2,nonsense=on")
    said = subprocess.run(argv, check=False, capture_output=True, text=True).stderr
    assert "hunter2hunter2" in said
    with pytest.raises(VmfleetError) as failed:
        bring_back(path, argv=argv)
    told = failed.value.message + json.dumps(failed.value.facts, default=str)
    assert "nonsense" in told
    assert "hunter2" not in told


# Shared RAM


@pytest.fixture
def in_a_file(tiny_guest, store, tmp_path):
    """A guest whose RAM was a file, its image, and that file."""
    ram = tmp_path / "ram"
    guest = tiny_guest(
        machine="pc,memory-backend=pc.ram",
        extra=("-object", f"memory-backend-file,id=pc.ram,size=64M,mem-path={ram},share=on"),
    ).start()
    guest.wait_passes(1)
    return guest, save(guest, store), ram


def test_ram_in_a_file_keeps_what_an_earlier_guest_left_there(in_a_file, store):
    guest, path, ram = in_a_file
    leave_something(ram, guest)
    refuses(path, str(ram), "reset_shared_memory")
    assert not guest.alive()
    kept = shutil.copy(path, store / "kept.save")
    result = bring_back(path, reset_shared_memory=True)
    assert f"emptied the memory file {ram}" in result["actions"]
    guest.wait_passes(2)
    assert guest.mismatches == []
    guest.kill()

    # Without the refusal the guest finds the other one's bytes: QEMU loads no zeros.
    leave_something(ram, guest)
    load_by_hand(guest, kept)
    guest.wait_passes(2)
    assert guest.mismatches != []


def leave_something(ram, guest):
    """Bytes of another guest, where this one has zeros."""
    with ram.open("r+b") as memory:
        memory.seek(guest.regions.zero_start_bytes)
        memory.write(b"left by another guest")


def load_by_hand(guest, path):
    """What QEMU does with an image when nobody asks anything."""
    guest.start(incoming=True)
    capabilities = [{"capability": "mapped-ram", "state": True}]
    guest.execute("migrate-set-capabilities", {"capabilities": capabilities})
    offset = image_info(path)["data_offset_bytes"]
    guest.execute("migrate-incoming", {"uri": f"file:{path},offset={offset}"})
    guest._wait(lambda: guest.status() == "paused", 10, "load")
    guest.execute("cont")


def test_ram_that_another_process_has_open_is_not_emptied(in_a_file):
    _guest, path, ram = in_a_file
    before = ram.read_bytes()
    with ram.open("rb") as memory:
        holder = subprocess.Popen(["sleep", "60"], stdin=memory)
    try:
        with pytest.raises(VmfleetError, match=f"process {holder.pid} has it open"):
            bring_back(path, reset_shared_memory=True)
    finally:
        holder.kill()
        holder.wait()
    assert ram.read_bytes() == before
