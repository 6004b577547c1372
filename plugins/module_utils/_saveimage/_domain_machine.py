# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The machine that a libvirt domain description tells of: what can be compared with a guest.

Source: libvirt docs/formatdomain (memory allocation, CPU model, disks), src/util/virutil.c
(virScaleInteger).
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from xml.etree import ElementTree

from ._domain_xml import parse

_UNITS: t.Mapping[str, int] = {
    "b": 1,
    "bytes": 1,
    **{letter: 1 << (10 * power) for power, letter in enumerate("kmgtpe", start=1)},
    **{f"{letter}ib": 1 << (10 * power) for power, letter in enumerate("kmgtpe", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtpe", start=1)},
}
_ON = ("force", "require")
_OFF = ("disable", "forbid")
# How libvirt names the RAM of a NUMA node.
_NODE = re.compile(r"(^|/)ram-node\d+$")
# What QEMU is told for a CPU that has no model.
_BY_MODE = {"host-passthrough": "host", "maximum": "max"}


@dataclass(frozen=True)
class Cpu:
    """``model``: as QEMU's -cpu names it; None where libvirt makes one up when it starts the domain
    (host-model), or leaves it to QEMU. ``features``: those that are surely on or off."""

    model: str | None
    features: t.Mapping[str, bool]
    made_up: bool = False


@dataclass(frozen=True)
class DomainMachine:
    """None is what the description does not tell. ``disk_files``: of disks and firmware;
    ``other_disks``: there are some that no file of this host holds; ``accelerator``: kvm, qemu
    (TCG) or another hypervisor; ``memory_bytes``: the machine's own RAM, without memory devices;
    ``memory_files``: what stands behind those of them that are files (NVDIMM, pmem)."""

    accelerator: str
    memory_bytes: int | None
    vcpus: int | None
    machine_type: str | None
    cpu: Cpu
    disk_files: frozenset[str]
    other_disks: bool
    memory_files: tuple[str, ...] = ()


def machine_of(xml: str) -> DomainMachine | None:
    """Read a description; None when it is not one."""
    domain = parse(xml)
    if domain is None or domain.tag != "domain":
        return None
    vcpu = domain.find("vcpu")
    system = domain.find("os/type")
    files, others = _disks(domain)
    return DomainMachine(
        accelerator=domain.get("type", ""),
        memory_bytes=_own_memory(domain),
        vcpus=None if vcpu is None else _number(vcpu.get("current") or vcpu.text),
        machine_type=None if system is None else system.get("machine"),
        cpu=_cpu(domain.find("cpu")),
        disk_files=files,
        other_disks=others,
        memory_files=tuple(
            path.text or "" for path in domain.iterfind("devices/memory/source/path")
        ),
    )


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _own_memory(domain: ElementTree.Element) -> int | None:
    """libvirt's total counts memory devices too."""
    total = _memory(domain.find("memory"))
    devices = [_memory(size) for size in domain.iterfind("devices/memory/target/size")]
    known = [count_bytes for count_bytes in devices if count_bytes is not None]
    if total is None or len(known) != len(devices):
        return None
    return total - sum(known)


def own_memory_bytes(ram_blocks: t.Iterable[tuple[str, int]]) -> int | None:
    """A machine's own RAM among its RAM blocks (name and bytes), as libvirt names them; None
    where they have other names."""
    own = [
        count_bytes
        for name, count_bytes in ram_blocks
        if name.endswith(".ram") or _NODE.search(name)
    ]
    return sum(own) if own else None


def _memory(element: ElementTree.Element | None) -> int | None:
    if element is None:
        return None
    number, unit = _number(element.text), _UNITS.get(element.get("unit", "KiB").lower())
    return None if number is None or unit is None else number * unit


def _cpu(element: ElementTree.Element | None) -> Cpu:
    if element is None:
        return Cpu(None, {})
    features = {}
    for feature in element.iter("feature"):
        policy = feature.get("policy", "require")
        if policy in _ON + _OFF:
            features[feature.get("name", "")] = policy in _ON
    mode = element.get("mode", "custom")
    if mode in _BY_MODE:
        return Cpu(_BY_MODE[mode], features)
    model = (element.findtext("model") or "").strip() or None
    return Cpu(model if mode == "custom" else None, features, made_up=mode == "host-model")


def _disks(domain: ElementTree.Element) -> tuple[frozenset[str], bool]:
    files, others = set(), False
    for disk in domain.iterfind("devices/disk"):
        source = disk.find("source")
        if source is None:
            continue  # an empty drive
        name = source.get("file") or source.get("dev")
        if name:
            files.add(name)
        others = others or not name
    for tag in ("os/loader", "os/nvram"):
        name = (domain.findtext(tag) or "").strip()
        if name:
            files.add(name)
    return frozenset(files), others
