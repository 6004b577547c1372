# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest is made of: which differences a restore must notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._description import (
    Differences,
    Hardware,
    differences,
    query_hardware,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._devices import Device
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._disks import Disk, DiskImage
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._ram_blocks import LiveRamBlock
from ansible_collections.vmfleet.suspend.tests.support.model_guest import model_guest, with_monitor
from ansible_collections.vmfleet.suspend.tests.support.values import (
    OTHER_UUID,
    RAM_BYTES,
    a_guest,
    an_image,
)

NIC = Device("virtio-net-pci", "pcie.0", (("addr", 24),), "/machine/peripheral/net0")
OTHER_NIC = Device("virtio-net-pci", "pcie.0", (("addr", 32),), "/machine/peripheral/net1")
BASE = DiskImage("qcow2", "/d/base", 1 << 30)
OVERLAY = DiskImage("qcow2", "/d/overlay", 1 << 30)
DISK = Disk("virtio-blk-pci (on pcie.0)", False, (OVERLAY, BASE))
HARDWARE = Hardware(("qemu64-x86_64-cpu",), (NIC,), (DISK,))


def ram(name, used_bytes, total_bytes=None):
    return LiveRamBlock(name, 4096, used_bytes, total_bytes or used_bytes, 0x7F0000000000)


def found(image, guest):
    return differences(image.description, guest.description, guest.ram_blocks, image.layout)


def between(saved, live):
    return found(an_image(hardware=saved), a_guest(hardware=live))


@pytest.mark.parametrize(
    ("guest", "image", "words"),
    [
        ({}, {}, None),
        ({"machine_type": "pc-i440fx-10.0"}, {}, "pc-i440fx-10.0"),
        ({"uuid": OTHER_UUID}, {}, OTHER_UUID),
        ({"uuid": None}, {}, None),
        ({"ram_blocks": (ram("pc.ram", RAM_BYTES * 2),)}, {}, str(RAM_BYTES * 2)),
        ({"ram_blocks": (ram("pc.ram", RAM_BYTES // 2),)}, {}, str(RAM_BYTES // 2)),
        ({"ram_blocks": (ram("mem0", RAM_BYTES),)}, {}, "pc.ram"),
        # A block that the guest had and QEMU never migrates is no difference.
        (
            {"ram_blocks": (ram("pc.ram", RAM_BYTES), ram("scratch", 4096))},
            {"all_ram_names": frozenset({"pc.ram", "scratch"})},
            None,
        ),
        ({"ram_blocks": (ram("pc.ram", RAM_BYTES), ram("dimm1", 4096))}, {}, "dimm1"),
        # A sequential stream resizes what QEMU can resize.
        (
            {"ram_blocks": (ram("pc.ram", 4096, RAM_BYTES),)},
            {"layout": "sequential"},
            None,
        ),
    ],
)
def test_what_qemu_would_not_notice_is_compared_with_both_figures(guest, image, words):
    problems = "; ".join(found(an_image(**image), a_guest(**guest)).guest)
    if words is None:
        assert problems == ""
    else:
        assert words in problems


def test_the_same_hardware_is_no_difference():
    assert between(HARDWARE, HARDWARE) == Differences()


@pytest.mark.parametrize(("saved", "live"), [(None, HARDWARE), (HARDWARE, None)])
def test_what_nobody_recorded_is_not_compared(saved, live):
    assert between(saved, live) == Differences()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpus": ("qemu64-x86_64-cpu",) * 2}, "had 1 vCPUs and this QEMU has 2"),
        ({"cpus": ("max-x86_64-cpu",)}, "vCPU 0 was qemu64-x86_64-cpu and is max-x86_64-cpu"),
        ({"devices": ()}, "had the device virtio-net-pci net0 (on pcie.0, addr 03.0), which this"),
        ({"devices": (NIC, OTHER_NIC)}, "QEMU has the device virtio-net-pci net1"),
        ({"devices": (NIC, NIC)}, "QEMU has the device virtio-net-pci net0"),
        ({"devices": (OTHER_NIC,)}, "addr 04.0), which the guest had not"),
    ],
)
def test_another_guest_is_told_by_what_it_is_made_of(change, words):
    differing = between(HARDWARE, replace(HARDWARE, **change))
    assert words in "; ".join(differing.guest)
    assert differing.disks == ()


def test_a_device_that_only_its_id_tells_apart_is_the_same():
    renamed = replace(NIC, path="/machine/peripheral-anon/device[4]")
    assert between(HARDWARE, replace(HARDWARE, devices=(renamed,))) == Differences()


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        # A guest saved after blockdev-snapshot and started as it was once: the old base image.
        (
            (replace(DISK, chain=(BASE,)),),
            "was /d/overlay (qcow2, 1073741824 bytes) on /d/base (qcow2, 1073741824 bytes) and is "
            "/d/base (qcow2",
        ),
        ((replace(DISK, chain=()),), "and is empty"),
        ((replace(DISK, read_only=True),), "was writable and is read-only"),
        ((), "is missing"),
        ((DISK, replace(DISK, device="ide-cd (on ide.1)")), "ide-cd (on ide.1) has a disk that it"),
    ],
)
def test_other_disks_are_told_apart_from_another_guest(disks, words):
    differing = between(HARDWARE, replace(HARDWARE, disks=disks))
    assert words in "; ".join(differing.disks)
    assert differing.guest == ()


def test_the_name_of_a_block_node_is_no_difference():
    renamed = replace(DISK, node_name="libvirt-1-format")
    assert between(HARDWARE, replace(HARDWARE, disks=(renamed,))) == Differences()


def test_what_was_written_is_read_back():
    assert Hardware.from_dict(HARDWARE.as_dict()) == HARDWARE


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"cpus": [], "devices": []},
        {"cpus": [1], "devices": [], "disks": []},
        {"cpus": [], "devices": [{}], "disks": []},
        {"cpus": [], "devices": [], "disks": [{}]},
    ],
)
def test_what_is_no_hardware_is_not_taken_for_it(data):
    assert Hardware.from_dict(data) is None


BLOCK = {"type": "virtio-blk-pci", "parent_bus": "/machine/q35/pcie.0", "addr": 24}
INSERTED = {
    "ro": False,
    "node-name": "n",
    "image": {"filename": "/d/a", "format": "raw", "virtual-size": 512},
}


@pytest.mark.parametrize(
    ("qdev", "shown_by"),
    [
        ("/machine/peripheral/vd0/virtio-backend", "virtio-blk-pci (on pcie.0, addr 03.0)"),
        ("vd0", "virtio-blk-pci (on pcie.0, addr 03.0)"),
        ("/machine/unattached/device[9]", "ide-hd (on ide.0)"),
        ("/machine/system.flash0", "/machine/system.flash0"),
    ],
)
def test_a_disk_is_known_by_the_device_that_shows_it(tmp_path, qdev, shown_by):
    with model_guest(
        tmp_path,
        devices={
            "/machine/peripheral/vd0": BLOCK,
            "/machine/unattached/device[9]": {"type": "ide-hd", "parent_bus": "/m/ide.0"},
        },
        block_devices=[
            {"device": "virtio0", "qdev": qdev, "inserted": INSERTED},
            {"device": "unused", "inserted": INSERTED},
        ],
    ) as guest:
        hardware = with_monitor(guest.qmp_socket, lambda monitor: query_hardware(monitor, [], None))
    (disk,) = hardware.disks
    assert disk.device == shown_by
    assert disk.chain == (DiskImage("raw", "/d/a", 512),)
