# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprint of a disk stays while its guest is saved, and moves with whatever changes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fingerprint import (
    BLOCK,
    FILE,
    changes,
    fingerprint,
)

MIB = 1 << 20
DISK_BYTES = 8 * MIB
# Neither at the beginning nor in a sampled block of a raw disk of DISK_BYTES.
UNSAMPLED_OFFSET = 3 * MIB + 4096
FORMATS = ["qcow2", "raw"]
# The kernel's clock for mtime stands still for up to this long.
TICK_SECONDS = 0.02


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def create(path, image_format):
    qemu_img("create", "-q", "-f", image_format, path, DISK_BYTES)
    return path


@pytest.fixture
def start(tiny_guest):
    """Start a guest, or a QEMU that waits for one, on a disk."""

    def started(disk, image_format, *, incoming=False, options=""):
        drive = f"file={disk},format={image_format},if=none,id=data{options}"
        extra = ("-drive", drive, "-device", "virtio-blk-pci,drive=data,addr=0x10")
        return tiny_guest(extra=extra).start(incoming)

    return started


def write(guest, offset=UNSAMPLED_OFFSET, pattern=0xAB):
    """As the guest's own device would."""
    said = guest.hmp(f'qemu-io data "write -P {pattern} {offset} 4096"')
    assert "error" not in said.lower(), said


def save(guest, path):
    """Bring QEMU to postmigrate."""
    guest.execute("stop")
    guest.execute("migrate", {"uri": f"file:{path}"})
    guest._wait(lambda: guest.status() == "postmigrate", 10, "be saved")


def differing(then, *, same_boot=True):
    """The names of the fields that differ by now."""
    said = changes(then, fingerprint(then.path), same_boot=same_boot)
    return {line.removeprefix(f"{then.path}: ").split()[0] for line in said}


@pytest.mark.parametrize("image_format", FORMATS)
def test_nothing_that_belongs_to_a_save_and_a_restore_moves_it(start, tmp_path, image_format):
    disk = create(tmp_path / "data", image_format)
    guest = start(disk, image_format)
    write(guest)
    save(guest, tmp_path / "image")
    saved = fingerprint(str(disk))
    assert saved.kind == FILE
    assert saved.facts["header_format"] == image_format

    guest.quit()
    assert fingerprint(str(disk)) == saved
    waiting = start(disk, image_format, incoming=True)
    assert waiting.status() == "inmigrate"
    assert fingerprint(str(disk)) == saved
    waiting.quit()
    assert fingerprint(str(disk)) == saved

    # The guest that comes back has the disk as it was, until it writes.
    back = start(disk, image_format, incoming=True)
    back.execute("migrate-incoming", {"uri": f"file:{tmp_path / 'image'}"})
    back._wait(lambda: back.status() != "inmigrate", 10, "load")
    assert fingerprint(str(disk)) == saved
    back.execute("cont")
    write(back, pattern=0xCD)
    assert differing(saved) >= {"mtime_ns"}


@pytest.mark.parametrize("image_format", FORMATS)
def test_one_write_of_a_guest_moves_it_where_no_sample_lies(start, tmp_path, image_format):
    disk = create(tmp_path / "data", image_format)
    first = start(disk, image_format)
    write(first)
    save(first, tmp_path / "image")
    first.quit()
    saved = fingerprint(str(disk))
    other = start(disk, image_format)
    write(other, pattern=0xCD)  # over what is there: nothing but data moves
    other.quit()
    # A file as small as this qcow2 may be sampled there all the same.
    found = differing(saved) - ({"sample_sha256"} if image_format == "qcow2" else set())
    assert found == {"mtime_ns"}


def snapshot(disk):
    qemu_img("snapshot", "-c", "one", disk)


def rebase(disk):
    base = create(disk.with_name("base"), "raw")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", base, "-F", "raw", disk)


def touch(disk):
    disk.touch()


def replace_by_a_copy(disk):
    disk.rename(disk.with_name("kept"))
    subprocess.run(["cp", "-p", disk.with_name("kept"), disk], check=True)


def cut_off(disk):
    os.truncate(disk, 4096 * 8)


def write_and_put_the_time_back(disk):
    status = disk.stat()
    with disk.open("r+b") as file:
        file.write(b"somebody else's")
    os.utime(disk, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("image_format", "change", "fields"),
    [
        ("qcow2", snapshot, {"mtime_ns", "qcow2_snapshots", "qcow2_snapshots_offset"}),
        ("qcow2", rebase, {"mtime_ns", "header_sha256"}),
        *((image_format, touch, {"mtime_ns"}) for image_format in FORMATS),
        *((image_format, replace_by_a_copy, {"inode"}) for image_format in FORMATS),
        *((image_format, cut_off, {"size_bytes", "mtime_ns"}) for image_format in FORMATS),
        ("raw", write_and_put_the_time_back, {"header_sha256", "sample_sha256"}),
    ],
)
def test_whatever_is_done_to_a_file_is_told(tmp_path, image_format, change, fields):
    disk = create(tmp_path / "data", image_format)
    saved = fingerprint(str(disk))
    time.sleep(TICK_SECONDS)
    change(disk)
    found = differing(saved)
    assert found >= fields
    if change in (touch, replace_by_a_copy):
        assert found == fields


# Block devices


def attach(file: Path) -> str:
    """A loop device on ``file``; skips where none can be had."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root; `make test` as root runs this")
    if shutil.which("losetup") is None:
        pytest.skip("losetup is not in PATH (Debian: mount)")
    done = subprocess.run(
        ["losetup", "--find", "--show", file], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"this kernel or container gives no loop device: {done.stderr.strip()}")
    return done.stdout.strip()


def attach_again(file: Path, device: str) -> None:
    """Give a detached device a file; udev may look at it for a moment still."""
    deadline = time.monotonic() + 5
    while subprocess.run(["losetup", device, file], check=False).returncode != 0:
        assert time.monotonic() < deadline, f"{device} stays busy"
        time.sleep(TICK_SECONDS)


def detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "backing"
    path.write_bytes(os.urandom(DISK_BYTES))
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[str]:
    """A block device of DISK_BYTES."""
    name = attach(backing)
    yield name
    detach(name)


def test_a_device_stays_as_it_was_over_a_save_and_moves_with_a_write(start, tmp_path, device):
    guest = start(device, "raw")
    write(guest)
    save(guest, tmp_path / "image")
    saved = fingerprint(device)
    assert saved.kind == BLOCK
    assert saved.facts["size_bytes"] == DISK_BYTES
    guest.quit()
    assert differing(saved) == set()
    start(device, "raw", incoming=True).quit()
    assert differing(saved) == set()

    other = start(device, "raw")
    write(other, pattern=0xCD)
    other.quit()
    assert differing(saved) == {"written_sectors"}
    # After a reboot the kernel's count is gone, and a write beside the sample with it.
    assert differing(saved, same_boot=False) == set()


@pytest.mark.parametrize(
    ("offset", "fields"),
    [(0, {"header_sha256", "sample_sha256"}), (MIB, {"sample_sha256"})],
    ids=["header", "sample"],
)
def test_after_a_reboot_a_device_is_known_by_its_sample(start, device, offset, fields):
    saved = fingerprint(device)
    guest = start(device, "raw")
    write(guest, offset)
    guest.quit()
    assert differing(saved, same_boot=False) == fields
    assert differing(saved) == {*fields, "written_sectors"}


def test_what_a_qemu_without_flushes_left_in_the_page_cache_belongs_to_the_save(
    start, tmp_path, device
):
    guest = start(device, "raw", options=",cache=unsafe")
    write(guest)
    save(guest, tmp_path / "image")
    saved = fingerprint(device)
    guest.quit()
    subprocess.run(["sync", device], check=True)
    assert differing(saved) == set()


def test_a_write_that_only_the_page_cache_holds_counts(device):
    saved = fingerprint(device)
    fd = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(fd, bytes(4096), UNSAMPLED_OFFSET)
        assert differing(saved) == {"written_sectors"}
    finally:
        os.close(fd)


def test_a_discard_is_a_change_as_well(device):
    saved = fingerprint(device)
    done = subprocess.run(
        ["blkdiscard", "--offset", str(UNSAMPLED_OFFSET), "--length", "4096", device],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"the store's filesystem cannot discard: {done.stderr.strip()}")
    assert differing(saved) == {"discarded_sectors"}


def test_a_device_that_was_away_meanwhile_is_told(device, backing):
    """Its file can be written to then, and no count of the device says so."""
    if not Path("/sys/block", Path(device).name, "diskseq").exists():
        pytest.skip("diskseq is there from Linux 5.15 on")
    saved = fingerprint(device)
    detach(device)
    with backing.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(4096), UNSAMPLED_OFFSET)
    attach_again(backing, device)
    assert differing(saved) == {"diskseq"}
    assert differing(saved, same_boot=False) == set()


def test_another_disk_in_its_place_is_told(device, tmp_path):
    saved = fingerprint(device)
    detach(device)
    other = tmp_path / "other"
    other.write_bytes(os.urandom(DISK_BYTES // 2))
    attach_again(other, device)
    assert differing(saved, same_boot=False) == {"size_bytes", "header_sha256", "sample_sha256"}
