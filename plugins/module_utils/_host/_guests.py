# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A guest of this host as discovery finds it: values alone, for plans and reports."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """How a guest is reached: its monitor, or its daemon and name there."""

    qmp_socket: str | None = None
    uri: str | None = None
    domain: str | None = None

    def __str__(self) -> str:
        return self.qmp_socket or f"domain {self.domain} at {self.uri}"

    def as_dict(self) -> dict[str, str]:
        """Only what is set."""
        known = {"qmp_socket": self.qmp_socket, "uri": self.uri, "domain": self.domain}
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class HostGuest:
    """One guest. Sizes in bytes.

    ``name``: QEMU's or libvirt's; the monitor's path where QEMU has none. ``state``: QEMU's run
    state, or a domain's state in libvirt's words (`_libvirt._domain.STATES`). ``memory_bytes``: its
    RAM. ``resident_bytes``: how much of that is in the host's memory or swap; ``estimated_bytes``:
    what an image would hold at most by that; both None where nobody can tell. ``disks``: files and
    devices behind its disks. ``blockers``: QEMU's own words against a migration.
    ``cannot_save``: why it cannot be saved now, None when it can. ``unit``: the systemd unit that
    runs it. ``autostart``, ``persistent``: of domains. ``hypervisor``: QEMU's or libvirt's
    version.
    """

    name: str
    uuid: str | None
    source: Source
    state: str
    pid: int | None
    memory_bytes: int | None
    resident_bytes: int | None
    estimated_bytes: int | None
    disks: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    cannot_save: str | None = None
    unit: str | None = None
    autostart: bool | None = None
    persistent: bool | None = None
    hypervisor: str = ""

    @property
    def key(self) -> str:
        """What it is known by in a journal: the UUID, else the name."""
        return self.uuid or self.name

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {
            "name": self.name,
            "uuid": self.uuid,
            **self.source.as_dict(),
            "state": self.state,
            "pid": self.pid,
            "memory_bytes": self.memory_bytes,
            "resident_bytes": self.resident_bytes,
            "estimated_bytes": self.estimated_bytes,
            "disks": list(self.disks),
            "migration_blockers": list(self.blockers),
            "can_save": self.cannot_save is None,
            "cannot_save_reason": self.cannot_save,
            "systemd_unit": self.unit,
            "autostart": self.autostart,
            "persistent": self.persistent,
        }
