# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the store of an image may go away: by filesystem, and by the disk below."""

from __future__ import annotations

import os

import pytest

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
        ("fuseblk", [SCSI]),
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
        ("nfs", [], "of type nfs that others serve"),
        ("nfs4", [], "of type nfs4"),
        ("cifs", [], "of type cifs"),
        ("smb3", [], "of type smb3"),
        ("ceph", [], "of type ceph"),
        ("9p", [], "of type 9p"),
        ("virtiofs", [], "of type virtiofs"),
        ("fuse", [], "that a process serves"),
        ("fuse.glusterfs", [], "fuse.glusterfs"),
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
        mount = mount_of(file.fileno())
        assert mount is not None
        assert os.path.exists("/proc/self/mountinfo")
        if mount.kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay"):
            assert unsteady(file.fileno()) is None
