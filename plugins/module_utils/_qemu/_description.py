# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a guest is made of, seen the same way at save, at restore and in check mode."""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass

from .._errors import QmpCommandError
from ._devices import Device, query_device, query_devices
from ._disks import Disk, parse_disk
from ._monitor import Monitor
from ._ram_blocks import LiveRamBlock, compare, compare_machine
from ._secrets import hide_in

_BACKEND = "/virtio-backend"
_NAMED = "/machine/peripheral/"


@dataclass(frozen=True)
class Hardware:
    """``cpus``: QOM type of each vCPU, by index."""

    cpus: tuple[str, ...]
    devices: tuple[Device, ...]
    disks: tuple[Disk, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "cpus": list(self.cpus),
            "devices": [device.as_dict() for device in self.devices],
            "disks": [disk.as_dict() for disk in self.disks],
        }

    @classmethod
    def from_dict(cls, data: object) -> Hardware | None:
        """What `as_dict` wrote, or None when ``data`` is not that."""
        if not isinstance(data, dict):
            return None
        lists = [data.get(key) for key in ("cpus", "devices", "disks")]
        if not all(isinstance(entries, list) for entries in lists):
            return None
        cpus = data["cpus"]
        devices = [Device.from_dict(entry) for entry in data["devices"]]
        disks = [Disk.from_dict(entry) for entry in data["disks"]]
        if None in devices or None in disks or not all(isinstance(cpu, str) for cpu in cpus):
            return None
        return cls(
            tuple(cpus),
            tuple(device for device in devices if device is not None),
            tuple(disk for disk in disks if disk is not None),
        )


@dataclass(frozen=True)
class Description:
    """A guest as far as it is known. ``machine_type`` resolved, such as pc-q35-10.0;
    ``ram_blocks``: name and bytes of those that migrate; ``other_ram``: names of those that never
    do. None: nobody recorded it."""

    machine_type: str | None
    uuid: str | None
    ram_blocks: tuple[tuple[str, int], ...]
    other_ram: frozenset[str]
    hardware: Hardware | None


@dataclass(frozen=True)
class Differences:
    """In words. ``guest``: it is another guest, or would be one after the load; ``disks``: it
    would go on with other disks than it had."""

    guest: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()


async def query_hardware(
    monitor: Monitor, cpus: t.Sequence[t.Mapping[str, t.Any]], directory: str | None
) -> Hardware:
    """``cpus``: the reply of query-cpus-fast; ``directory``: where QEMU's relative names start."""
    devices = await query_devices(monitor)
    by_path = {device.path: device for device in devices}
    disks = []
    for entry in await monitor.execute("query-block"):
        device = await _frontend(monitor, entry, by_path)
        if device is not None:
            disks.append(parse_disk(entry, device, directory))
    kinds = [
        str(await monitor.execute("qom-get", {"path": cpu["qom-path"], "property": "type"}))
        for cpu in cpus
    ]
    return Hardware(tuple(kinds), devices, tuple(disks))


async def _frontend(
    monitor: Monitor, entry: t.Mapping[str, t.Any], by_path: t.Mapping[str, Device]
) -> str | None:
    """The device that shows a disk, in words; None when no guest sees it."""
    path = str(entry.get("qdev", ""))
    if not path:
        return None
    if path.endswith(_BACKEND):
        path = path[: -len(_BACKEND)]
    if not path.startswith("/"):
        path = _NAMED + path
    if path in by_path:
        return by_path[path].place
    try:
        return (await query_device(monitor, path)).place
    except QmpCommandError:
        return path


def differences(
    saved: Description,
    live: Description,
    live_ram: t.Sequence[LiveRamBlock],
    layout: str,
) -> Differences:
    """Everything that tells the QEMU ``live`` from the guest that was saved, and that QEMU itself
    would not notice, or only by corrupting the guest (spec/qemu.md 0.4 and 3.4)."""
    guest = []
    if saved.machine_type is not None and live.machine_type is not None:
        different = compare_machine(saved.machine_type, live.machine_type)
        guest += [different] if different is not None else []
    if saved.uuid is not None and live.uuid is not None and saved.uuid != live.uuid:
        guest.append(f"the image is of UUID {saved.uuid}, the QEMU has UUID {live.uuid}")
    migrating = [block for block in live_ram if block.name not in saved.other_ram]
    guest += compare(saved.ram_blocks, migrating, layout)
    if saved.hardware is None or live.hardware is None:
        return Differences(tuple(guest))
    guest += _other_cpus(saved.hardware.cpus, live.hardware.cpus)
    guest += _other_devices(saved.hardware.devices, live.hardware.devices)
    return Differences(tuple(guest), tuple(_other_disks(saved.hardware.disks, live.hardware.disks)))


def _other_cpus(saved: t.Sequence[str], live: t.Sequence[str]) -> t.Iterator[str]:
    if len(saved) != len(live):
        yield f"the guest had {len(saved)} vCPUs and this QEMU has {len(live)}"
    for index, (had, has) in enumerate(zip(saved, live)):
        if had != has:
            yield f"vCPU {index} was {had} and is {has} in this QEMU"


def _other_devices(saved: t.Sequence[Device], live: t.Sequence[Device]) -> t.Iterator[str]:
    had = Counter(device.identity for device in saved)
    has = Counter(device.identity for device in live)
    for device in saved:
        if has[device.identity] < had[device.identity]:
            has[device.identity] += 1
            yield f"the guest had the device {device.words}, which this QEMU has not"
    has = Counter(device.identity for device in live)
    for device in live:
        if had[device.identity] < has[device.identity]:
            had[device.identity] += 1
            yield f"this QEMU has the device {device.words}, which the guest had not"


def _other_disks(saved: t.Sequence[Disk], live: t.Sequence[Disk]) -> t.Iterator[str]:
    now = {disk.device: disk for disk in live}
    for disk in saved:
        other = now.pop(disk.device, None)
        if other is None:
            yield f"the disk of {disk.device} is missing"
            continue
        if disk.chain != other.chain:
            yield f"the disk of {disk.device} was {_words(disk)} and is {_words(other)}"
        elif disk.read_only != other.read_only:
            was, now_is = ("read-only", "writable")[:: 1 if disk.read_only else -1]
            yield f"the disk of {disk.device} was {was} and is {now_is}"
    for device, other in now.items():
        yield f"{device} has a disk that it had not: {_words(other)}"


def _words(disk: Disk) -> str:
    if not disk.chain:
        return "empty"
    return " on ".join(
        f"{hide_in(image.filename)} ({image.image_format}, {image.virtual_size_bytes} bytes)"
        for image in disk.chain
    )
