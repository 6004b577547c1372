# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a libvirt domain description tells of the machine."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._domain_machine import (
    Cpu,
    machine_of,
)


def a_domain(inside: str) -> str:
    return f"<domain type='kvm'><name>web01</name>{inside}</domain>"


@pytest.mark.parametrize(
    ("memory", "count_bytes"),
    [
        ("<memory>1024</memory>", 1 << 20),
        ("<memory unit='KiB'>1024</memory>", 1 << 20),
        ("<memory unit='k'>1024</memory>", 1 << 20),
        ("<memory unit='MiB'>2</memory>", 2 << 20),
        ("<memory unit='M'>2</memory>", 2 << 20),
        ("<memory unit='MB'>2</memory>", 2_000_000),
        ("<memory unit='GiB'> 3\n</memory>", 3 << 30),
        ("<memory unit='bytes'>4096</memory>", 4096),
        ("<memory unit='b'>4096</memory>", 4096),
        ("<memory unit='TiB'>1</memory>", 1 << 40),
        ("<memory unit='parsec'>1</memory>", None),
        ("<memory>much</memory>", None),
        ("", None),
    ],
)
def test_memory_is_read_in_every_unit(memory, count_bytes):
    machine = machine_of(a_domain(memory))
    assert machine is not None
    assert machine.memory_bytes == count_bytes


def test_memory_devices_are_not_the_machines_own():
    dimm = "<devices><memory><target><size unit='MiB'>{}</size></target></memory></devices>"
    machine = machine_of(a_domain("<memory unit='MiB'>96</memory>" + dimm.format(32)))
    assert machine is not None
    assert machine.memory_bytes == 64 << 20
    machine = machine_of(a_domain("<memory unit='MiB'>96</memory>" + dimm.format("much")))
    assert machine is not None
    assert machine.memory_bytes is None


@pytest.mark.parametrize(
    ("vcpu", "count"),
    [
        ("<vcpu>4</vcpu>", 4),
        ("<vcpu placement='static' current='2'>4</vcpu>", 2),
        ("<vcpu/>", None),
        ("", None),
    ],
)
def test_vcpus_are_those_that_are_plugged_in(vcpu, count):
    machine = machine_of(a_domain(vcpu))
    assert machine is not None
    assert machine.vcpus == count


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("", Cpu(None, {})),
        ("<cpu mode='host-passthrough'/>", Cpu("host", {})),
        ("<cpu mode='maximum'/>", Cpu("max", {})),
        ("<cpu mode='host-model'/>", Cpu(None, {}, made_up=True)),
        ("<cpu><topology sockets='1' cores='2' threads='1'/></cpu>", Cpu(None, {})),
        (
            "<cpu mode='custom'><model fallback='forbid'>Haswell</model>"
            "<feature policy='require' name='vmx'/><feature policy='disable' name='rtm'/>"
            "<feature policy='optional' name='ss'/><feature name='aes'/></cpu>",
            Cpu("Haswell", {"vmx": True, "rtm": False, "aes": True}),
        ),
    ],
)
def test_the_cpu_is_named_as_qemu_names_it(cpu, expected):
    machine = machine_of(a_domain(cpu))
    assert machine is not None
    assert machine.cpu == expected


def test_disks_are_files_and_devices_with_the_firmware():
    machine = machine_of(
        a_domain(
            "<os><type machine='pc-q35-10.0'>hvm</type><loader>/fw/code.fd</loader>"
            "<nvram>/fw/vars.fd</nvram></os><devices>"
            "<disk type='file'><source file='/srv/a.qcow2'/></disk>"
            "<disk type='block'><source dev='/dev/vg/b'/></disk>"
            "<disk type='file' device='cdrom'/></devices>"
        )
    )
    assert machine is not None
    assert machine.disk_files == {"/srv/a.qcow2", "/dev/vg/b", "/fw/code.fd", "/fw/vars.fd"}
    assert not machine.other_disks
    assert (machine.machine_type, machine.accelerator) == ("pc-q35-10.0", "kvm")


def test_a_disk_elsewhere_is_no_file():
    disk = "<devices><disk type='network'><source protocol='rbd' name='a/b'/></disk></devices>"
    machine = machine_of(a_domain(disk))
    assert machine is not None
    assert machine.other_disks


@pytest.mark.parametrize("xml", ["", "<domain", "<network/>", "<!DOCTYPE a><domain/>"])
def test_what_is_no_domain_has_no_machine(xml):
    assert machine_of(xml) is None
