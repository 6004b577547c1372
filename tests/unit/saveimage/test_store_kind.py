# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the store of an image may go away: by filesystem, and by the disk below."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _store_kind
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._store_kind import (
    Mount,
    mount_of,
    parse_mount,
    unsteady,
    why_unsteady,
)

SCSI = "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda"
USB = "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb"
ISCSI = "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdc"
NVME = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
TMPFS = Mount("tmpfs", "none", "0:22")
FABRICS = "/sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1"


@pytest.mark.parametrize(
    ("line", "mount_id", "mount"),
    [
        (
            "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard",
            29,
            Mount("ext4", "/dev/vda", "254:0"),
        ),
        (
            "61 29 0:48 / /store\\040x rw shared:7 master:2 - nfs4 filer:/images rw,vers=4.2",
            61,
            Mount("nfs4", "filer:/images", "0:48"),
        ),
        (
            "70 29 0:50 / /m rw - fuse.sshfs you@there:/ rw",
            70,
            Mount("fuse.sshfs", "you@there:/", "0:50"),
        ),
        (
            "71 29 0:51 /sub /m\\040-\\040n rw,relatime - btrfs /dev/mapper/vg-lv rw,subvol=/sub",
            71,
            Mount("btrfs", "/dev/mapper/vg-lv", "0:51"),
        ),
        (
            "72 29 8:18 / /win rw shared:9 - fuseblk /dev/sdb2 rw,user_id=0,blksize=4096",
            72,
            Mount("fuseblk", "/dev/sdb2", "8:18"),
        ),
        (
            "73 1 0:52 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
            73,
            Mount("overlay", "overlay", "0:52"),
        ),
        ("74 29 0:22 / /run rw master:4 propagate_from:2 - tmpfs none rw,size=1k", 74, TMPFS),
    ],
)
def test_a_line_of_mountinfo_is_read(line, mount_id, mount):
    assert parse_mount(line) == (mount_id, mount)


@pytest.mark.parametrize(
    ("kind", "devices"),
    [
        ("ext4", [SCSI]),
        ("xfs", [NVME]),
        ("btrfs", [SCSI, NVME]),
        ("fuseblk", [SCSI]),  # ntfs-3g: a process serves it, from a disk of this host
        ("tmpfs", []),
        ("overlay", []),
        ("zfs", []),
    ],
)
def test_these_stay(kind, devices):
    assert why_unsteady(Mount(kind, "source", "8:1"), devices) is None


@pytest.mark.parametrize(
    ("kind", "devices", "words"),
    [
        ("nfs", [], "it lies on filer:/images, a filesystem of type nfs that others serve"),
        ("nfs4", [], "of type nfs4"),
        ("cifs", [], "of type cifs"),
        ("smb3", [], "of type smb3"),
        ("ceph", [], "of type ceph"),
        ("9p", [], "of type 9p"),
        ("virtiofs", [], "of type virtiofs"),
        ("pvfs2", [], "of type pvfs2"),
        ("gfs2", [SCSI], "of type gfs2"),
        ("ocfs2", [SCSI], "of type ocfs2"),
        ("lustre", [], "of type lustre"),
        ("gpfs", [], "of type gpfs"),
        ("fuse", [], "it lies on filer:/images, a filesystem (fuse) that a process serves"),
        ("fuse.glusterfs", [], "(fuse.glusterfs) that a process serves"),
        ("fuse.sshfs", [], "(fuse.sshfs) that a process serves"),
        ("fuseblk", [USB], "sdb, a disk that can be taken out"),
        ("ext4", [USB], "sdb, a disk that can be taken out"),
        ("ext4", [SCSI + " (removable)"], "sda, a disk that can be taken out"),
        ("xfs", [SCSI, ISCSI], "sdc, a disk behind a network"),
        ("ext4", ["/sys/devices/virtual/block/nbd3"], "nbd3, a disk behind a network"),
        ("ext4", [FABRICS], "nvme1n1, a disk behind a network"),
    ],
)
def test_these_may_go_away(kind, devices, words):
    reason = why_unsteady(Mount(kind, "filer:/images", "0:48"), devices)
    assert reason is not None
    assert words in reason


def test_this_machines_own_files_are_looked_up(tmp_path):
    with (tmp_path / "image").open("wb") as file:
        status = os.fstat(file.fileno())
        mount = mount_of(file.fileno())
        assert mount is not None
        if mount.kind in ("ext4", "xfs", "tmpfs"):  # their device is the one that stat(2) tells
            assert mount.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        if mount.kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay"):
            assert unsteady(file.fileno()) is None


def test_the_disk_below_this_machines_own_files_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr(_store_kind, "_is_removable", lambda _device: True)
    with (tmp_path / "image").open("wb") as file:
        number = os.fstat(file.fileno()).st_dev
        if not os.path.exists(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"):
            pytest.skip("the directory of the tests lies on no disk of this machine")
        assert "a disk that can be taken out" in (unsteady(file.fileno()) or "")


def test_of_several_mounts_the_one_that_the_file_was_opened_in_counts():
    if not os.path.ismount("/proc"):
        pytest.skip("/proc is not mounted: there is no mount of a known kind")
    with open("/proc/self/status", encoding="ascii") as file:
        mount = mount_of(file.fileno())
    assert mount is not None
    assert mount.kind == "proc"


def test_without_an_answer_of_proc_nothing_is_said_against_a_store(tmp_path):
    with (tmp_path / "image").open("wb") as file:
        closed = os.dup(file.fileno())
    os.close(closed)
    assert mount_of(closed) is None
    assert unsteady(closed) is None


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    """Makes disks as sysfs shows them; returns what they are known by, ``major:minor``."""
    numbers = tmp_path / "dev" / "block"
    numbers.mkdir(parents=True)
    monkeypatch.setattr(_store_kind, "_SYS", str(numbers))

    def disk(number, place, *, removable=False, slaves=(), partition_of=None):
        device = (partition_of or tmp_path / "devices") / place
        device.mkdir(parents=True)
        (device / "dev").write_text(f"{number}\n")
        if partition_of:
            (device / "partition").write_text("1\n")
        else:
            (device / "removable").write_text(f"{removable:d}\n")
            (device / "slaves").mkdir()
        for slave in slaves:
            (device / "slaves" / slave.name).symlink_to(slave)
        (numbers / number).symlink_to(device)
        return device

    return disk


def unsteady_on(monkeypatch, mount):
    monkeypatch.setattr(_store_kind, "mount_of", lambda _fd: mount)
    return unsteady(-1)


SDA, SDB, SDC = "ata1/host0/block/sda", "usb2/2-1/host6/block/sdb", "host3/session1/block/sdc"


@pytest.mark.parametrize(
    ("place", "removable", "reason"),
    [
        (SDA, False, None),
        (SDA, True, "it lies on sda, a disk that can be taken out"),
        (SDB, False, "it lies on sdb, a disk that can be taken out"),
        (SDC, False, "it lies on sdc, a disk behind a network"),
        ("virtual/block/rbd0", False, "it lies on rbd0, a disk behind a network"),
    ],
)
def test_a_disk_is_known_by_its_place_from_its_partitions_too(
    sysfs, monkeypatch, place, removable, reason
):
    disk = sysfs("8:0", place, removable=removable)
    sysfs("8:1", f"{disk.name}1", partition_of=disk)
    for number in ("8:0", "8:1"):
        # The source's own number does not count: it may be a link, or of another container.
        assert unsteady_on(monkeypatch, Mount("ext4", "/dev/null", number)) == reason


def test_a_partition_of_an_array_is_known_by_the_arrays_disks(sysfs, monkeypatch):
    member = sysfs("8:16", SDB)
    array = sysfs("9:0", "virtual/block/md0", slaves=[member])
    sysfs("259:0", "md0p1", partition_of=array)
    reason = unsteady_on(monkeypatch, Mount("ext4", "/dev/md0p1", "259:0"))
    assert reason == "it lies on sdb, a disk that can be taken out"


@pytest.mark.parametrize(
    ("controller", "reason"),
    [
        ("pci0000:00/0000:01:00.0/nvme/nvme0", None),
        ("virtual/nvme-fabrics/ctl/nvme0", "it lies on nvme0n1, a disk behind a network"),
    ],
)
def test_a_disk_of_an_nvme_subsystem_is_known_by_its_controllers(
    sysfs, tmp_path, monkeypatch, controller, reason
):
    place = tmp_path / "devices" / controller
    place.mkdir(parents=True)
    disk = sysfs("259:1", "virtual/nvme-subsystem/nvme-subsys0/nvme0n1")
    (disk.parent / "nvme0").symlink_to(place)
    assert unsteady_on(monkeypatch, Mount("xfs", "/dev/nvme0n1", "259:1")) == reason


def test_every_disk_below_a_volume_counts(sysfs, monkeypatch):
    local = sysfs("8:0", SDA)
    partition = sysfs("8:1", "sda1", partition_of=local)
    far = sysfs("8:32", SDC)
    sysfs("253:0", "virtual/block/dm-0", slaves=[partition])
    array = sysfs("9:0", "virtual/block/md0", slaves=[partition, far])
    sysfs("253:1", "virtual/block/dm-1", slaves=[array])
    assert unsteady_on(monkeypatch, Mount("xfs", "/dev/x", "253:0")) is None
    reason = unsteady_on(monkeypatch, Mount("xfs", "/dev/x", "253:1"))
    assert reason == "it lies on sdc, a disk behind a network"


def test_a_filesystem_with_a_number_of_its_own_is_found_by_its_source(sysfs, monkeypatch):
    number = os.stat("/dev/null").st_rdev  # any device of which the number is known
    sysfs(f"{os.major(number)}:{os.minor(number)}", SDB)
    reason = unsteady_on(monkeypatch, Mount("btrfs", "/dev/null", "0:44"))
    assert reason == "it lies on sdb, a disk that can be taken out"


@pytest.mark.parametrize(
    "mount",
    [
        Mount("btrfs", "/dev/that/is/gone", "0:44"),
        Mount("zfs", "pool/images", "0:45"),
        Mount("overlay", "overlay", "0:46"),
        TMPFS,
        Mount("ext4", "/dev/x", "8:77"),
    ],
)
def test_nothing_is_said_against_a_store_of_which_no_disk_is_known(sysfs, monkeypatch, mount):
    sysfs("8:0", SDB)
    assert unsteady_on(monkeypatch, mount) is None
