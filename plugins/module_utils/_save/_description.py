# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which domain description goes into an image of a guest over QMP, and whether libvirt could
restore the guest by it: pure functions (spec/libvirt.md 4.1, what the XML must).

libvirt builds another QEMU from the description. What differs in devices fails to load there; what
fails to fail (T5: more RAM; another CPU; other disks) is compared here.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from .._qemu._command_line import keys_of, options_of
from .._qemu._guest import Guest
from .._saveimage._domain_machine import Cpu, DomainMachine, machine_of, own_memory_bytes
from .._saveimage._domain_xml import identity

GIVEN = "domain_xml_file"
DEFINED = "libvirt's definition"
GENERATED = "generated"
_MIB = 1 << 20
# What an unversioned machine type stands for.
_ALIASES = {"pc": "pc-i440fx-", "q35": "pc-q35-"}
_DEFAULT_MODEL = "qemu64"
# Words of -cpu that libvirt takes from elsewhere in the description, or that no guest sees.
_OTHER_CPU_WORDS = ("hv", "kvm", "migratable", "host-phys-bits", "l3-cache", "host-cache-info")
_FILE_DRIVERS = ("file", "host_device", "host_cdrom")


@dataclass(frozen=True)
class Described:
    """``xml`` is None where one must be made; ``source``: `GIVEN`, `DEFINED` or `GENERATED`."""

    xml: str | None
    source: str
    reason: str
    warnings: tuple[str, ...] = ()


def describe_guest(
    guest: Guest, given: str | None, defined: t.Iterable[tuple[str, str]], directory: str
) -> Described:
    """Choose: the operator's, else libvirt's definition of a guest whose command line is libvirt's,
    else one that is made.

    ``given``: the operator's text; ``defined``: path and text of the definitions in ``directory``.
    Raises `Refused` for a description of the operator's that contradicts the guest.
    """
    if given is not None:
        return _as_given(guest, given)
    if guest.uuid is None or not from_libvirt(_arguments(guest)):
        return Described(None, GENERATED, "QEMU's command line is not one of libvirt's")
    for path, text in defined:
        if (identity(text) or ("", None))[1] == guest.uuid:
            problems = _all_problems(guest, text)
            if problems:
                why = f"{path} does not describe the guest as it is: {'; '.join(problems)}"
                return Described(None, GENERATED, why)
            return Described(text, DEFINED, f"{path} describes the guest as it is")
    return Described(None, GENERATED, f"no domain in {directory} has the guest's UUID")


def _as_given(guest: Guest, text: str) -> Described:
    machine = machine_of(text)
    problems = machine_problems(machine, guest) if machine is not None else []
    if problems:
        raise Refused(
            f"domain_xml_file does not describe this guest: {'; '.join(problems)}. libvirt would "
            "restore it into another machine. Take the description from virsh dumpxml --migratable "
            "while the domain runs, or leave domain_xml_file out.",
            guest={"state": guest.run_state},
        )
    doubts = disk_problems(machine, guest) if machine is not None else []
    return Described(
        text,
        GIVEN,
        "given",
        tuple(
            f"domain_xml_file: {doubt}. Restored through libvirt, the guest would have other disks."
            for doubt in doubts
        ),
    )


def _all_problems(guest: Guest, text: str) -> list[str]:
    machine = machine_of(text)
    if machine is None:
        return ["it cannot be read"]
    problems = machine_problems(machine, guest) + disk_problems(machine, guest)
    if machine.cpu.made_up:
        problems.append("its CPU is host-model, which the definition does not spell out")
    name = (identity(text) or ("", None))[0]
    if guest.name is not None and name != guest.name:
        problems.append(f"its name is {name}, the guest's {guest.name}")
    return problems


def _arguments(guest: Guest) -> tuple[str, ...]:
    return guest.surroundings.argv[1:] if guest.surroundings is not None else ()


def from_libvirt(arguments: t.Sequence[str]) -> bool:
    """Whether libvirt wrote a command line, whoever runs it now: then the devices that a definition
    leaves open are where libvirt would put them again (libvirt src/qemu/qemu_command.c)."""
    options = list(options_of(arguments))
    names = {option.name for option in options}
    guests = [keys_of(option.value or "", "") for option in options if option.name == "name"]
    return {"nodefaults", "no-user-config"} <= names and any("guest" in keys for keys in guests)


def machine_problems(machine: DomainMachine, guest: Guest) -> list[str]:
    """What libvirt's QEMU would have otherwise than the guest."""
    problems = []
    if machine.accelerator != guest.accelerator:
        problems.append(f"its type is {machine.accelerator}, the guest's {guest.accelerator}")
    if machine.machine_type is not None and not _same_machine(machine.machine_type, guest):
        problems.append(
            f"its machine type is {machine.machine_type}, the guest's {guest.machine_type}"
        )
    own = own_memory_bytes((block.name, block.used_bytes) for block in guest.ram_blocks)
    running, described = own or guest.memory_bytes, machine.memory_bytes
    if described is not None and _mib(described) != _mib(running):
        problems.append(f"it has {_mib(described)} MiB of RAM, the guest {_mib(running)}")
    if machine.vcpus is not None and machine.vcpus != guest.vcpus:
        problems.append(f"it has {machine.vcpus} vCPUs, the guest {guest.vcpus}")
    if guest.surroundings is not None and not machine.cpu.made_up:
        problems += cpu_problems(machine.cpu, _arguments(guest))
    return problems


def _same_machine(described: str, guest: Guest) -> bool:
    alias = _ALIASES.get(described)
    if alias is not None:
        return guest.machine_type.startswith(alias)
    return described == guest.machine_type


def _mib(count_bytes: int) -> int:
    return -(-count_bytes // _MIB)  # libvirt rounds up


def cpu_problems(cpu: Cpu, arguments: t.Sequence[str]) -> list[str]:
    """Where the description's CPU is not the one of a command line."""
    keys: dict[str, str] = {}
    for option in options_of(arguments):
        if option.name == "cpu" and option.value is not None:
            keys = _cpu_keys(option.value)
    model = keys.pop("model", _DEFAULT_MODEL)
    described = cpu.model or _DEFAULT_MODEL
    if model != described:
        return [f"its CPU is {described}, the guest's {model}"]
    running = {
        _feature(name): value == "on"
        for name, value in keys.items()
        if not name.startswith(_OTHER_CPU_WORDS)
    }
    expected = {_feature(name): on for name, on in cpu.features.items()}
    differing = sorted(
        name for name in {*running, *expected} if running.get(name) != expected.get(name)
    )
    return [f"its CPU differs in {', '.join(differing)}"] if differing else []


def _cpu_keys(value: str) -> dict[str, str]:
    """``model,feature=on,+feature,-feature``."""
    keys = {}
    for index, word in enumerate(value.split(",")):
        name, equals, setting = word.partition("=")
        if index == 0:
            keys["model"] = word
        elif word[:1] in "+-":
            keys[word[1:]] = "on" if word[0] == "+" else "off"
        else:
            keys[name] = setting if equals else "on"
    return keys


def _feature(name: str) -> str:
    return name.replace("_", "-").replace(".", "-").lower()


def disk_problems(machine: DomainMachine, guest: Guest) -> list[str]:
    """Where the description's disks are not those that QEMU has open."""
    cwd = guest.surroundings.cwd if guest.surroundings is not None else "/"
    nodes = [node for node in guest.block_nodes if node.driver in _FILE_DRIVERS]
    opened = {os.path.normpath(os.path.join(cwd, node.filename)) for node in nodes}
    written = {
        os.path.normpath(os.path.join(cwd, node.filename)) for node in nodes if not node.read_only
    }
    described = {os.path.normpath(name) for name in machine.disk_files}
    problems = [f"{name} is not open in QEMU" for name in sorted(described - opened)]
    problems += [f"it does not know {name}" for name in sorted(written - described)]
    if machine.other_disks:
        problems.append("it has disks that are not files of this host")
    return problems
