# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which description goes into an image of a guest over QMP, and what would not come back by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._block_graph import BlockNode
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._description import (
    DEFINED,
    GENERATED,
    GIVEN,
    cpu_problems,
    describe_guest,
    from_libvirt,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._domain_machine import Cpu
from ansible_collections.vmfleet.suspend.tests.support.values import (
    OTHER_UUID,
    SURROUNDINGS,
    UUID,
    a_guest,
)

LIBVIRTS = (
    *("qemu-system-x86_64", "-name", "guest=web01,debug-threads=on", "-cpu", "qemu64"),
    *("-no-user-config", "-nodefaults", "-m", "64"),
)
DISK = BlockNode("disk", "file", "/srv/web01.img", False, None, ())
BASE = BlockNode("base", "file", "/srv/base.img", True, None, ())
WHERE = "/etc/libvirt/qemu"


def a_libvirt_guest(**changes):
    surroundings = replace(SURROUNDINGS, argv=changes.pop("argv", LIBVIRTS))
    guest = a_guest(block_nodes=(DISK, BASE), surroundings=surroundings)
    return replace(guest, **changes)


def a_definition(guest, **changes):
    values = {
        "type": guest.accelerator,
        "name": "web01",
        "uuid": UUID,
        "memory_kib": guest.memory_bytes >> 10,
        "vcpus": guest.vcpus,
        "machine": guest.machine_type,
        "cpu": "<model>qemu64</model>",
        "mode": "custom",
        "disk": "<source file='/srv/web01.img'/>",
        **changes,
    }
    return (
        "<domain type='{type}'><name>{name}</name><uuid>{uuid}</uuid>"
        "<memory>{memory_kib}</memory><vcpu>{vcpus}</vcpu>"
        "<os><type machine='{machine}'>hvm</type></os><cpu mode='{mode}'>{cpu}</cpu>"
        "<devices><disk>{disk}</disk></devices></domain>"
    ).format(**values)


def choose(guest, *definitions, given=None):
    return describe_guest(
        guest, given, [(f"{WHERE}/web01.xml", text) for text in definitions], WHERE
    )


def test_a_guest_of_libvirts_is_described_by_its_definition():
    guest = a_libvirt_guest()
    other = a_definition(guest, uuid=OTHER_UUID)
    described = choose(guest, other, "<network/>", a_definition(guest))
    assert (described.xml, described.source) == (a_definition(guest), DEFINED)


def test_a_guest_with_a_command_line_of_its_own_is_not():
    guest = a_guest()
    described = choose(guest, a_definition(guest))
    assert (described.xml, described.source) == (None, GENERATED)
    assert "not one of libvirt's" in described.reason


def test_without_a_definition_one_is_generated():
    described = choose(a_libvirt_guest())
    assert (described.source, described.xml) == (GENERATED, None)
    assert "no domain in /etc/libvirt/qemu has the guest's UUID" in described.reason


DIFFERENT: list[tuple[dict[str, object], str]] = [
    ({"type": "xen"}, "its type is xen"),
    ({"machine": "pc-q35-9.2"}, "its machine type is pc-q35-9.2"),
    ({"memory_kib": 128 << 10}, "it has 128 MiB of RAM, the guest 64"),
    ({"vcpus": 7}, "it has 7 vCPUs"),
    ({"cpu": "<model>Haswell</model>"}, "its CPU is Haswell, the guest's qemu64"),
    ({"cpu": "<model>qemu64</model><feature name='vmx'/>"}, "its CPU differs in vmx"),
    ({"mode": "host-passthrough", "cpu": ""}, "its CPU is host"),
]
LOOSE: list[tuple[dict[str, object], str]] = [
    ({"mode": "host-model", "cpu": ""}, "its CPU is host-model"),
    ({"name": "db01"}, "its name is db01"),
    ({"disk": "<source file='/srv/other.img'/>"}, "it does not know /srv/web01.img"),
    ({"disk": "<source file='/srv/other.img'/>"}, "/srv/other.img is not open in QEMU"),
    ({"disk": "<source protocol='rbd' name='a'/>"}, "disks that are not files of this host"),
]


@pytest.mark.parametrize(("changes", "words"), DIFFERENT + LOOSE)
def test_a_definition_that_was_edited_since_is_not_used(changes, words):
    guest = a_libvirt_guest()
    described = choose(guest, a_definition(guest, **changes))
    assert (described.source, described.xml) == (GENERATED, None)
    assert words in described.reason


def test_an_unversioned_machine_type_stands_for_the_guests():
    guest = a_libvirt_guest(machine_type="pc-q35-10.0")
    assert choose(guest, a_definition(guest, machine="q35")).source == DEFINED
    assert choose(guest, a_definition(guest, machine="pc")).source == GENERATED


def test_the_operators_description_comes_first():
    guest = a_libvirt_guest()
    mine = a_definition(guest).replace("<devices>", "<title>mine</title><devices>")
    described = choose(guest, a_definition(guest), given=mine)
    assert (described.xml, described.source, described.warnings) == (mine, GIVEN, ())


@pytest.mark.parametrize(("changes", "words"), DIFFERENT)
def test_an_operators_description_of_another_machine_is_refused(changes, words):
    guest = a_libvirt_guest()
    with pytest.raises(Refused, match=words) as refused:
        choose(guest, given=a_definition(guest, **changes))
    assert "virsh dumpxml --migratable" in refused.value.message


def test_disks_that_the_operator_names_otherwise_are_a_warning():
    guest = a_libvirt_guest()
    given = a_definition(guest, disk="<source file='/srv/link.img'/>")
    (first, second) = choose(guest, given=given).warnings
    assert "/srv/link.img is not open in QEMU" in first
    assert "it does not know /srv/web01.img" in second


@pytest.mark.parametrize(
    ("value", "cpu", "problems"),
    [
        (None, Cpu(None, {}), []),
        ("qemu64", Cpu(None, {}), []),
        ("Haswell,vmx=on,rtm=off", Cpu("Haswell", {"vmx": True, "rtm": False}), []),
        ("Haswell,+vmx,-rtm", Cpu("Haswell", {"vmx": True, "rtm": False}), []),
        ("Haswell,sse4.1=on", Cpu("Haswell", {"sse4_1": True}), []),
        ("host,migratable=on,hv-relaxed=on,kvm=off", Cpu("host", {}), []),
        ("Haswell,vmx=on", Cpu("Haswell", {}), ["its CPU differs in vmx"]),
        ("Haswell", Cpu("Haswell", {"vmx": False}), ["its CPU differs in vmx"]),
        ("Haswell,vmx=off", Cpu("Haswell", {"vmx": True}), ["its CPU differs in vmx"]),
        ("EPYC", Cpu("Haswell", {}), ["its CPU is Haswell, the guest's EPYC"]),
    ],
)
def test_cpus_are_compared_by_model_and_feature(value, cpu, problems):
    arguments = () if value is None else ("-cpu", value)
    assert cpu_problems(cpu, arguments) == problems


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (LIBVIRTS[1:], True),
        (("-name", "web01", "-no-user-config", "-nodefaults"), False),
        (("-name", "guest=web01"), False),
        ((), False),
    ],
)
def test_a_command_line_of_libvirts_is_recognised(arguments, expected):
    assert from_libvirt(arguments) is expected
