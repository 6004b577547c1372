# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real image is loaded beside its real guest, and nothing of the guest's notices."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._argv import incoming_argv
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._overlays import (
    create_overlays,
    find_qemu_img,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._rehearsal_argv import (
    Rehearsal,
    rehearsal_argv,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._rehearsal_disks import Overlay
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, image_info
from ansible_collections.vmfleet.suspend.tests.support.guest import QEMU, QemuGuest
from ansible_collections.vmfleet.suspend.tests.support.kinds import KINDS

DISK_BYTES = 8 << 20
NVRAM_BYTES = 64 << 10
# Behind the disk that the guest boots.
DEVICES = (
    *("-device", "virtio-blk-pci,drive=X,addr=0x10"),
    *("-device", "virtio-blk-pci,drive=NV,addr=0x11"),
)


class Machine(QemuGuest):
    """A guest without anything to boot, whose vCPUs never run."""

    def boot_arguments(self) -> Sequence[str]:
        return ("-S",)


class ThrowAway(QemuGuest):
    """The QEMU of one rehearsal, in a scratch directory of its own."""

    def __init__(self, tmp_path: Path, guest: QemuGuest, sizes: dict[str, int]) -> None:
        super().__init__(tmp_path, guest.memory_mib, name=None)
        self.scratch = self.directory / "scratch"
        self.scratch.mkdir(mode=0o700)
        self.rehearsal: Rehearsal = rehearsal_argv(
            guest.argv(), str(self.scratch), sizes, os.getcwd()
        )

    def boot_arguments(self) -> Sequence[str]:
        return ()

    def argv(self, incoming: bool = False) -> list[str]:
        return incoming_argv(self.rehearsal.argv, self.qmp_socket)[0]

    def load(self, uri: str) -> str:
        """Load a sequential stream; returns the run state after it."""
        self.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
        deadline = time.monotonic() + 10
        while (reply := self.execute("query-migrate"))["status"] != "completed":
            assert reply["status"] != "failed", self.stderr_path.read_text()
            assert time.monotonic() < deadline, reply
            time.sleep(0.02)
        return self.status()


Rehearse = Callable[..., ThrowAway]


@pytest.fixture
def rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearse]:
    """Starts the rehearsal of a guest, as a restore does."""
    started: list[ThrowAway] = []

    def start(guest: QemuGuest, sizes: dict[str, int] | None = None) -> ThrowAway:
        throw_away = ThrowAway(tmp_path, guest, sizes or {})
        started.append(throw_away)
        asyncio.run(
            create_overlays(
                throw_away.rehearsal.overlays,
                QEMU,
                user_id=os.geteuid(),
                group_id=os.getegid(),
            )
        )
        monkeypatch.setenv("TMPDIR", str(throw_away.scratch))
        throw_away.start()
        return throw_away

    yield start
    for throw_away in started:
        throw_away.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """A factory of guests that were never run."""
    made: list[Machine] = []

    def make(*extra: str) -> Machine:
        made.append(Machine(tmp_path, 32, extra=extra, name=None))
        return made[-1]

    yield make
    for guest in made:
        guest.close()


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def facts(paths: Sequence[Path]) -> dict[Path, tuple[object, ...]]:
    """What must not change about files: the same file, unwritten, with the same content."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in paths:
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[path] = (status.st_ino, status.st_mtime_ns, status.st_size, content)
    return found


def save_plainly(guest: QemuGuest, path: Path) -> None:
    """The guest's stream and nothing else, as QEMU writes it."""
    guest.execute("migrate", {"uri": f"file:{path}"})
    deadline = time.monotonic() + 10
    while guest.execute("query-migrate").get("status") != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def activate_disks(throw_away: ThrowAway) -> None:
    """Let it take what locks it takes, as QEMU before 10.0 does after every load."""
    commands = {entry["name"] for entry in throw_away.execute("query-commands")}
    if "blockdev-set-active" in commands:
        throw_away.execute("blockdev-set-active", {"active": True})


def drive(disk: Path, nvram: Path) -> list[str]:
    return [
        *("-drive", f"file={disk},if=none,id=X,cache=none,aio=io_uring,discard=unmap"),
        *("-drive", f"file={nvram},if=none,id=NV,format=raw"),
        *DEVICES,
    ]


def blockdev(disk: Path, nvram: Path) -> list[str]:
    node = {"driver": "file", "node-name": "f", "filename": str(disk), "auto-read-only": True}
    image = {"driver": "qcow2", "node-name": "X", "file": "f", "read-only": False}
    return [
        *("-blockdev", json.dumps({**node, "discard": "unmap", "cache": {"direct": True}})),
        *("-blockdev", json.dumps(image)),
        *("-blockdev", f"raw,node-name=NV,file.driver=file,file.filename={nvram}"),
        *DEVICES,
    ]


@pytest.mark.parametrize("disks", [drive, blockdev])
def test_an_image_loads_while_its_guest_still_holds_disks_and_sockets_and_the_guest_goes_on(
    tiny_guest, store, tmp_path, rehearse, disks
):
    base, disk, nvram = (tmp_path / name for name in ("base.qcow2", "disk.qcow2", "nvram"))
    qemu_img("create", "-f", "qcow2", base, DISK_BYTES)
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", disk)
    nvram.write_bytes(b"nvram" * (NVRAM_BYTES // 5) + b"end.")
    memory, pid_file, capture = (tmp_path / name for name in ("ram", "pid", "capture"))
    guest = tiny_guest(
        machine="pc,memory-backend=ram",
        extra=(
            *disks(disk, nvram),
            *("-object", f"memory-backend-file,id=ram,size=64M,mem-path={memory},share=on"),
            *("-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:5-null"),
            *("-device", "virtio-net-pci,netdev=n,romfile="),
            *("-object", f"filter-dump,id=d,netdev=n,file={capture}"),
            *("-pidfile", str(pid_file)),
        ),
    )
    agent = guest.directory / "agent"
    guest.extra += (
        *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
        *("-device", "virtio-serial", "-device", "virtserialport,chardev=agent,name=agent"),
        *("-vnc", f"unix:{guest.directory / 'vnc'}"),
    )
    guest.start()
    guest.wait_passes(1)
    image = store / "guest.save"
    do_save(guest.qmp_socket, image, **KINDS["v2-raw"], guest_state="paused")
    assert guest.status() == "postmigrate"
    watched = [base, disk, nvram, memory, pid_file, capture, image, guest.disk_path, agent]
    watched += [guest.serial_path, Path(guest.qmp_socket), guest.directory / "vnc"]
    before = facts(watched)

    throw_away = rehearse(guest, {str(disk): DISK_BYTES, str(nvram): NVRAM_BYTES})
    offset_bytes = image_info(image)["data_offset_bytes"]
    assert throw_away.load(f"file:{image},offset={offset_bytes}") == "paused"

    assert facts(watched) == before
    blocks = throw_away.execute("query-named-block-nodes")
    written = {Path(node["file"]).parent for node in blocks if node["drv"] == "file"}
    assert written == {tmp_path, guest.directory, throw_away.scratch}
    assert all(
        node["ro"]
        for node in blocks
        if node["drv"] == "file" and Path(node["file"]).parent != throw_away.scratch
    )
    activate_disks(throw_away)
    guest.execute("cont")
    guest.wait_passes(2)
    assert guest.mismatches == []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(agent))
    assert throw_away.status() == "paused"
    throw_away.quit()
    assert facts([base, disk, nvram, image]) == {
        path: before[path] for path in (base, disk, nvram, image)
    }
    kept = {Path(overlay.path).name for overlay in throw_away.rehearsal.overlays}
    assert set(os.listdir(throw_away.scratch)) == kept


@pytest.mark.parametrize("disks", [drive, blockdev])
def test_the_guest_may_run_while_an_older_image_of_it_is_rehearsed(
    tiny_guest, store, tmp_path, rehearse, disks
):
    disk, nvram = tmp_path / "disk.qcow2", tmp_path / "nvram"
    qemu_img("create", "-f", "qcow2", disk, DISK_BYTES)
    nvram.write_bytes(bytes(NVRAM_BYTES))
    guest = tiny_guest(extra=disks(disk, nvram)).start()
    guest.wait_passes(1)
    image = store / "guest.save"
    do_save(guest.qmp_socket, image, **KINDS["v2-raw"], guest_state="running")
    throw_away = rehearse(guest, {"X": DISK_BYTES, "NV": NVRAM_BYTES})
    offset_bytes = image_info(image)["data_offset_bytes"]
    assert throw_away.load(f"file:{image},offset={offset_bytes}") == "paused"
    guest.wait_passes(1)
    assert guest.mismatches == []


# Does the state of what was replaced fit what replaced it?

MEMORY = "memory-backend-file,id=m,size=32M,mem-path=ram,share=on"
NVDIMM = ("-machine", "pc,nvdimm=on", "-m", "32M,slots=2,maxmem=1G")


@pytest.mark.parametrize(
    "words",
    [
        ("-object", MEMORY, "-machine", "pc,memory-backend=m"),
        # RAM blocks of files are named otherwise here.
        ("-object", MEMORY, "-machine", "pc-i440fx-3.1", "-numa", "node,memdev=m"),
        (
            *("-object", "memory-backend-shm,id=m,size=32M"),
            *("-machine", "pc-i440fx-3.1", "-numa", "node,memdev=m"),
        ),
        ("-mem-path", "ram", "-mem-prealloc"),
        (
            *NVDIMM,
            *("-object", "memory-backend-file,id=v,size=32M,mem-path=nv,share=on"),
            *("-device", "nvdimm,memdev=v,label-size=128k"),
        ),
        (
            *NVDIMM,
            *("-object", "memory-backend-file,id=v,size=16M,mem-path=pmem,share=on"),
            *("-device", "virtio-pmem-pci,memdev=v"),
        ),
        (
            *("-netdev", "socket,id=n,listen=127.0.0.1:0"),
            *("-device", "virtio-net-pci,netdev=n,romfile="),
        ),
        ("-nic", "socket,listen=127.0.0.1:0,model=e1000,mac=52:54:00:00:00:01"),
        ("-net", "nic,model=rtl8139", "-net", "socket,listen=127.0.0.1:0"),
        (
            *("-chardev", "pty,id=c,mux=on", "-mon", "chardev=c", "-serial", "chardev:c"),
            *("-serial", "file:log", "-parallel", "file:printer", "-debugcon", "file:debug"),
            *("-chardev", "udp,id=u,port=1,localport=0", "-object", "rng-egd,chardev=u,id=r"),
            *("-device", "virtio-rng-pci,rng=r", "-monitor", "pty", "-serial", "none"),
        ),
        ("-audiodev", "wav,id=a,path=sound", "-device", "AC97,audiodev=a"),
        ("-audio", "wav,model=hda,path=sound"),
        ("-machine", "q35", "-device", "uefi-vars-x64,jsonfile=variables"),
        ("-drive", "if=ide,media=cdrom", "-fda", "floppy", "-pflash", "flash"),
        ("-drive", "file=flash,if=virtio,format=raw,readonly=on", "-overcommit", "mem-lock=off"),
    ],
    ids=" ".join,
)
def test_the_state_fits_and_no_file_is_touched(machine, tmp_path, monkeypatch, rehearse, words):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name, size_bytes in (("floppy", 1440 << 10), ("flash", 1 << 20)):
        with Path(name).open("wb") as file:
            file.truncate(size_bytes)
    guest = machine(*words).start()
    save_plainly(guest, tmp_path / "stream")
    guest.kill()
    before = facts(sorted(work.iterdir()))
    throw_away = rehearse(guest)
    assert throw_away.load(f"file:{tmp_path / 'stream'}") in ("paused", "prelaunch")
    assert facts(sorted(work.iterdir())) == before


@pytest.mark.parametrize("network", ["tap,queues=2", "tap"])
def test_the_offloads_of_a_tap_fit_a_fresh_one_that_is_attached_to_nothing(
    machine, tmp_path, rehearse, network
):
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("making a tap needs root and /dev/net/tun; `make test` as root runs this")
    guest = machine(
        *("-netdev", f"{network},id=n,ifname=vmftest%d,script=no,downscript=no"),
        *(
            "-device",
            "virtio-net-pci,netdev=n,romfile=" + (",mq=on" if "queues" in network else ""),
        ),
    ).start()
    save_plainly(guest, tmp_path / "stream")
    throw_away = rehearse(guest)
    assert throw_away.load(f"file:{tmp_path / 'stream'}") in ("paused", "prelaunch")
    (fresh,) = [name for name in os.listdir("/sys/class/net") if name.startswith("vmfleet")]
    assert not Path(f"/sys/class/net/{fresh}/master").exists()
    assert Path(f"/sys/class/net/{fresh}/operstate").read_text().strip() == "down"


# Overlays.


def test_without_qemu_img_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="package qemu-utils"):
        find_qemu_img("/nonexistent/qemu-system-x86_64")


def test_qemu_img_is_taken_from_beside_qemu(tmp_path):
    for name in ("qemu-system-x86_64", "qemu-img"):
        shutil.copy("/bin/true", tmp_path / name)
    assert find_qemu_img(str(tmp_path / "qemu-system-x86_64")) == str(tmp_path / "qemu-img")


def test_an_overlay_that_cannot_be_made_is_told_in_the_words_of_qemu_img(tmp_path):
    overlay = Overlay(str(tmp_path / "missing" / "overlay"), "X", DISK_BYTES)
    with pytest.raises(StoreError, match=r"could not make the overlay .*No such file"):
        asyncio.run(create_overlays([overlay], QEMU, user_id=0, group_id=0))


def test_an_overlay_is_empty_and_belongs_to_the_user_that_qemu_runs_as(tmp_path):
    user_id = 65534 if os.geteuid() == 0 else os.geteuid()
    overlay = Overlay(str(tmp_path / "overlay"), "X", DISK_BYTES)
    asyncio.run(create_overlays([overlay], QEMU, user_id=user_id, group_id=os.getegid()))
    assert os.stat(overlay.path).st_uid == user_id
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", overlay.path], capture_output=True, check=True
    )
    info = json.loads(said.stdout)
    assert (info["format"], info["virtual-size"]) == ("qcow2", DISK_BYTES)
    assert "backing-filename" not in info
