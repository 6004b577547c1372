# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of a guest: what tells one from another, and what does not."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._devices import (
    Device,
    query_devices,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import model_guest, with_monitor

NIC = {
    "type": "virtio-net-pci",
    "parent_bus": "/machine/q35/pcie.0",
    "addr": 24,
    "mac": "52:54:00:11:22:33",
    "serial": None,
    "realized": True,
}


def devices_of(directory, devices):
    with model_guest(directory, devices=devices) as guest:
        return with_monitor(guest.qmp_socket, query_devices)


def test_a_device_is_its_type_its_bus_and_what_a_guest_sees_of_it(tmp_path):
    (device,) = devices_of(tmp_path, {"/machine/peripheral/net0": NIC})
    assert device == Device(
        "virtio-net-pci",
        "pcie.0",
        (("addr", 24), ("mac", "52:54:00:11:22:33")),
        "/machine/peripheral/net0",
    )


def test_named_and_nameless_devices_are_listed_and_those_of_the_board_are_not(tmp_path):
    found = devices_of(
        tmp_path,
        {
            "/machine/unattached/device[7]": dict(NIC, type="isa-pcspk"),
            "/machine/peripheral-anon/device[0]": dict(NIC, type="virtio-blk-pci"),
            "/machine/peripheral/net0": NIC,
        },
    )
    assert [device.kind for device in found] == ["virtio-net-pci", "virtio-blk-pci"]


def test_neither_its_id_nor_its_number_among_the_nameless_identifies_a_device():
    facts = (("addr", 24),)
    one = Device("virtio-net-pci", "pcie.0", facts, "/machine/peripheral/net0")
    other = Device("virtio-net-pci", "pcie.0", facts, "/machine/peripheral-anon/device[3]")
    assert one.identity == other.identity
    assert one.place == other.place


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            Device("virtio-net-pci", "pcie.0", (("addr", 26), ("serial", "")), "/machine/x/net0"),
            "virtio-net-pci net0 (on pcie.0, addr 03.2)",
        ),
        (Device("qemu64-x86_64-cpu", "", (), "/machine/y/device[0]"), "qemu64-x86_64-cpu"),
        (
            Device("virtio-mem-pci", "", (("addr", 1 << 32),), "/machine/x/device[1]"),
            "virtio-mem-pci (addr 4294967296)",
        ),
    ],
)
def test_an_operator_reads_type_id_and_place(device, words):
    assert device.words == words


def test_what_was_written_is_read_back(tmp_path):
    (device,) = devices_of(tmp_path, {"/machine/peripheral/net0": NIC})
    assert Device.from_dict(device.as_dict()) == device


@pytest.mark.parametrize(
    "data", [None, {}, {"kind": 1}, {"kind": "a", "bus": "b", "path": "c", "facts": {"addr": []}}]
)
def test_what_is_no_device_is_not_taken_for_one(data):
    assert Device.from_dict(data) is None
