# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether the store of an image may go away while the host lives: a network, a removable disk.

A guest whose RAM is mapped from an image reads it for as long as it runs. Where the store does not
answer, its vCPUs hang; where it is gone, the kernel ends its QEMU (SIGBUS).
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

# Filesystem types of /proc/self/mountinfo that are served by another host or by a process.
_REMOTE = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "pvfs2",  # OrangeFS
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
        "wekafs",
    }
)
_FUSE = "fuse"
# Block devices behind an IP network: by the beginning of their name, by their place in sysfs.
_REMOTE_DEVICES = ("nbd", "rbd")
_REMOTE_BUSES = ("/session", "/nvme-fabrics/")  # iSCSI; NVMe over TCP or RDMA
_USB = "/usb"
_SYS = "/sys/dev/block"
_NVME_CONTROLLER = re.compile(r"nvme\d+$")


class Mount(t.NamedTuple):
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    kind: str
    source: str
    device: str


def parse_mount(line: str) -> tuple[int, Mount]:
    """Mount id, and what is mounted. ``device`` as ``major:minor``."""
    before, _dash, after = line.partition(" - ")
    mount_id, _parent, device = before.split()[:3]
    kind, source = after.split()[:2]
    return int(mount_id), Mount(kind, source, device)


def mount_of(fd: int) -> Mount | None:
    """What the file behind ``fd`` lies on; None where /proc does not tell."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            mount_id = next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            return next(mount for found, mount in map(parse_mount, mounts) if found == mount_id)
    return None


def is_remote(mount: Mount) -> bool:
    """Whether another host serves it."""
    return mount.kind in _REMOTE


def why_unsteady(mount: Mount, devices: t.Sequence[str]) -> str | None:
    """Why the store may go away, or None. ``devices``: the directories in sysfs of the disks below
    it, with their links resolved; those that can be taken out end with ``(removable)``."""
    if is_remote(mount):
        return f"it lies on {mount.source}, a filesystem of type {mount.kind} that others serve"
    if mount.kind == _FUSE or mount.kind.startswith(_FUSE + "."):
        return f"it lies on {mount.source}, a filesystem ({mount.kind}) that a process serves"
    for device in devices:
        name = os.path.basename(device.split(" ", 1)[0])
        if name.startswith(_REMOTE_DEVICES) or any(bus in device for bus in _REMOTE_BUSES):
            return f"it lies on {name}, a disk behind a network"
        if device.endswith("(removable)") or _USB in device:
            return f"it lies on {name}, a disk that can be taken out"
    return None


def unsteady(fd: int) -> str | None:
    """Why the store of the file behind ``fd`` may go away; None when nothing says so."""
    mount = mount_of(fd)
    if mount is None:
        return None
    return why_unsteady(mount, tuple(_disks(_device_number(mount))))


def _device_number(mount: Mount) -> str:
    """btrfs and others have numbers of their own; their source names the device."""
    if mount.device.startswith("0:") and mount.source.startswith("/dev/"):
        with contextlib.suppress(OSError):
            number = os.stat(mount.source).st_rdev
            return f"{os.major(number)}:{os.minor(number)}"
    return mount.device


def _disks(number: str) -> t.Iterator[str]:
    """The disks at the bottom: through device mapper and RAID, and from a partition to its disk."""
    link = os.path.join(_SYS, number)
    if not os.path.exists(link):
        return
    device = os.path.realpath(link)
    if os.path.exists(os.path.join(device, "partition")):
        device = os.path.dirname(device)
    below = os.path.join(device, "slaves")
    slaves = os.listdir(below) if os.path.isdir(below) else []
    for slave in slaves:
        with contextlib.suppress(OSError), open(f"{below}/{slave}/dev", encoding="ascii") as found:
            yield from _disks(found.read().strip())
    if slaves:
        return
    yield device + (" (removable)" if _is_removable(device) else "")
    # The one disk of an NVMe subsystem tells nothing of the controllers that it is reached by.
    subsystem, name = os.path.split(device)
    if os.path.basename(subsystem).startswith("nvme-subsys"):
        for entry in os.listdir(subsystem):
            if _NVME_CONTROLLER.match(entry):
                yield os.path.join(os.path.realpath(os.path.join(subsystem, entry)), name)


def _is_removable(device: str) -> bool:
    with contextlib.suppress(OSError), open(f"{device}/removable", encoding="ascii") as flag:
        return flag.read().strip() == "1"
    return False
