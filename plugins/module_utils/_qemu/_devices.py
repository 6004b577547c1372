# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The devices that a guest was given, as QEMU's object tree (QOM) shows them.

Only those that somebody asked for are listed (-device, -netdev's cards, device_add): what the board
brings along belongs to the machine type. A device is known by its type and its place, never by its
id or its number among the nameless, which a guest cannot see and which an unplug shifts.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._monitor import Monitor

_CONTAINERS = ("/machine/peripheral", "/machine/peripheral-anon")
_CHILD = "child<"
# What a guest sees of a device, or needs to find its disk again.
_FACTS = (
    "addr",
    "chassis",
    "host_mtu",
    "iobase",
    "lun",
    "mac",
    "mq",
    "num-queues",
    "port",
    "queues",
    "scsi-id",
    "serial",
    "slot",
    "unit",
    "wwn",
)
Fact = t.Union[str, int, bool]


@dataclass(frozen=True)
class Device:
    """``kind``: QOM type such as virtio-net-pci; ``bus``: name of the bus it sits on, empty
    without; ``facts``: QOM properties, sorted; ``path``: where it is in QOM, not compared."""

    kind: str
    bus: str
    facts: tuple[tuple[str, Fact], ...]
    path: str

    @property
    def identity(self) -> tuple[str, str, tuple[tuple[str, Fact], ...]]:
        """What two QEMU of the same guest agree on."""
        return self.kind, self.bus, self.facts

    @property
    def place(self) -> str:
        """What tells it from the guest's other devices, in words and without its id."""
        return self._described("")

    @property
    def words(self) -> str:
        """For an operator: type, id if any, and place."""
        name = self.path.rpartition("/")[2]
        return self._described(f" {name}" if name and not name.startswith("device[") else "")

    def _described(self, name: str) -> str:
        facts = [_fact_words(key, value) for key, value in self.facts if value not in ("", False)]
        place = [f"on {self.bus}"] if self.bus else []
        return f"{self.kind}{name}" + (f" ({', '.join(place + facts)})" if place + facts else "")

    def as_dict(self) -> dict[str, t.Any]:
        return {"kind": self.kind, "bus": self.bus, "facts": dict(self.facts), "path": self.path}

    @classmethod
    def from_dict(cls, data: object) -> Device | None:
        """What `as_dict` wrote, or None when ``data`` is not that."""
        if not isinstance(data, dict) or not isinstance(data.get("facts"), dict):
            return None
        kind, bus, path = data.get("kind"), data.get("bus"), data.get("path")
        if not (isinstance(kind, str) and isinstance(bus, str) and isinstance(path, str)):
            return None
        facts = data["facts"]
        if not all(isinstance(value, (str, int)) for value in facts.values()):
            return None
        return cls(kind, bus, tuple(sorted(facts.items())), path)


def _fact_words(key: str, value: Fact) -> str:
    if key == "addr" and isinstance(value, int) and 0 <= value < 256:
        return f"addr {value >> 3:02x}.{value & 7}"  # a PCI function
    return f"{key} {value}"


async def query_devices(monitor: Monitor) -> tuple[Device, ...]:
    """Every device that was asked for, in QEMU's order."""
    devices = []
    for container in _CONTAINERS:
        for entry in await monitor.execute("qom-list", {"path": container}):
            if entry["type"].startswith(_CHILD):
                kind = entry["type"][len(_CHILD) : -1]
                devices.append(await query_device(monitor, f"{container}/{entry['name']}", kind))
    return tuple(devices)


async def query_device(monitor: Monitor, path: str, kind: str | None = None) -> Device:
    """The device at ``path``. Raises `QmpCommandError` when there is none."""
    names = {entry["name"] for entry in await monitor.execute("qom-list", {"path": path})}
    if kind is None:
        kind = str(await _property(monitor, path, "type"))
    bus = str(await _property(monitor, path, "parent_bus")) if "parent_bus" in names else ""
    facts = []
    for name in _FACTS:
        value = await _property(monitor, path, name) if name in names else None
        if isinstance(value, (str, int)):
            facts.append((name, value))
    return Device(kind, bus.rpartition("/")[2], tuple(facts), path)


async def _property(monitor: Monitor, path: str, name: str) -> t.Any:
    return await monitor.execute("qom-get", {"path": path, "property": name})
