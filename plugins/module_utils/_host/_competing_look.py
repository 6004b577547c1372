# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Looking for those who compete: files, processes, systemd. Reads only; `_competing` decides."""

from __future__ import annotations

import asyncio
import os
import time
import typing as t

from .._errors import Refused, VmfleetError
from .._libvirt._qemu_conf import read_settings
from .._qemu._systemctl import SystemdError, items_of, system_runs, systemctl
from .._qemu._systemd_guest import depended_on
from .._qemu._systemd_unit import Unit, own_unit
from .._uninterrupted import within
from . import _competing_agents as agents
from ._competing_libvirt import LIST_FILE, SERVICE, listed_in, settings_of
from ._competing_off import hold_path
from ._competing_shutdown import scheduled
from ._competing_values import AutoShutdown, GuestUnit, LibvirtGuests, Observed, SeenAgent
from ._guests import HostGuest

# Debian's, then Red Hat's; libvirt-guests.sh of a distribution reads one of them.
_CONFIGURATIONS = ("/etc/default/libvirt-guests", "/etc/sysconfig/libvirt-guests")
# Without systemd: there while the service counts as started.
_LOCKS = (
    "/var/lock/libvirt-guests",
    "/var/lock/subsys/libvirt-guests",
    "/run/openrc/started/libvirt-guests",
)
_SCHEDULED = "/run/systemd/shutdown/scheduled"
_PROXMOX_RESOURCES = "/etc/pve/ha/resources.cfg"
_PROXMOX_STATUS = "/etc/pve/local/lrm_status"
_GANETI_PAUSE = "/var/lib/ganeti/watcher.pause"
_CIB_COMMAND = ("cibadmin", "--query")
_CIB_SECONDS = 15.0
_MOST_AT_ONCE = 16
# Relations of a unit that have it started by the other one.
_STARTED_BY = ("WantedBy", "RequiredBy", "BoundBy", "UpheldBy", "TriggeredBy")


async def look(
    uri: str | None,
    guests: t.Sequence[HostGuest],
    qemu_conf: str,
    named_units: t.Mapping[str, str],
) -> Observed:
    """As `_competing.find`, before the decision."""
    units = await guest_units(guests, named_units)
    names = frozenset(unit.unit.name for unit in units)
    return Observed(
        guests=tuple(guests),
        libvirt_guests=await libvirt_guests_service() if uri is not None else None,
        auto_shutdown=auto_shutdown_of(qemu_conf) if uri is not None else None,
        units=units,
        agents=await seen_agents(names),
        shutdown=scheduled(_text(_SCHEDULED) or ""),
    )


async def libvirt_guests_service() -> LibvirtGuests | None:
    """The service; None where it is not there, or masked, which keeps systemd from running it."""
    settings: dict[str, str] = {}
    for path in _CONFIGURATIONS:
        settings.update(settings_of(_text(path) or ""))
    listed = listed_in(_text(LIST_FILE) or "")
    if not system_runs():
        if not any(map(os.path.exists, _LOCKS)):
            return None
        return LibvirtGuests("active", True, False, settings, listed, False)
    shown = await _shown(Unit(SERVICE), "ActiveState", "DropInPaths", "LoadState", "UnitFileState")
    if shown["LoadState"] in ("masked", "not-found"):
        return None
    return LibvirtGuests(
        state=shown["ActiveState"],
        enabled=not shown["UnitFileState"].startswith(("disabled", "masked")),
        systemd=True,
        settings=settings,
        listed=listed,
        switched_off=hold_path(SERVICE) in items_of(shown["DropInPaths"]),
    )


def auto_shutdown_of(path: str) -> AutoShutdown:
    """What qemu.conf says about the host going down."""
    try:
        settings = read_settings(path)
    except VmfleetError as exc:
        return AutoShutdown(path, {}, exc.message.split(". ")[0])
    found = {name: one.value for name, one in settings.items() if name.startswith("auto_shutdown_")}
    return AutoShutdown(path, found)


async def guest_units(
    guests: t.Sequence[HostGuest], named_units: t.Mapping[str, str]
) -> tuple[GuestUnit, ...]:
    """The units that the guests' QEMUs depend on. Those of domains are libvirt's own."""
    limit = asyncio.Semaphore(_MOST_AT_ONCE)

    async def one(guest: HostGuest, pid: int) -> GuestUnit | None:
        async with limit:
            return await _guest_unit(guest.name, pid, named_units.get(guest.name))

    looks = [
        one(guest, guest.pid)
        for guest in guests
        if guest.pid is not None and guest.source.uri is None
    ]
    return tuple(unit for unit in await asyncio.gather(*looks) if unit is not None)


async def _guest_unit(guest: str, pid: int, named: str | None) -> GuestUnit | None:
    member, restart = await depended_on(pid)
    if member is None:
        return None
    unit = member.unit
    try:
        shown = await _shown(unit, "DropInPaths", "UnitFileState", *_STARTED_BY)
        same = named is not None and await _names(named, unit)
    except (Refused, SystemdError):  # of a manager that cannot be asked, as is its Restart=
        return GuestUnit(guest, unit, restart, (), named=False, held=False)
    started_by = {word for name in _STARTED_BY for word in items_of(shown[name])}
    if not started_by and shown["UnitFileState"].startswith("enabled"):
        started_by = {"the boot of the host"}
    held = hold_path(unit.name) in items_of(shown["DropInPaths"])
    return GuestUnit(guest, unit, restart, tuple(sorted(started_by)), named=same, held=held)


async def _names(word: str, unit: Unit) -> bool:
    """Whether the option ``systemd_unit`` means this unit: by its name, or by an alias of it."""
    named = Unit(own_unit(word, 0).name, unit.user_id)
    return named == unit or (await _shown(named, "Id"))["Id"] == unit.name


async def _shown(unit: Unit, *names: str) -> dict[str, str]:
    """Properties of a unit, "" for what this systemd does not have."""
    answer = await systemctl(unit, "show", f"--property={','.join(names)}", "--", unit.name)
    found = dict.fromkeys(names, "")
    for line in answer.splitlines():
        name, _equals, value = line.partition("=")
        found[name] = value
    return found


async def seen_agents(unit_names: t.Collection[str]) -> tuple[SeenAgent, ...]:
    """The high-availability agents that run here; ``unit_names``: of units that run guests."""
    found = []
    for agent in agents.running(process_names()):
        if agent is agents.PACEMAKER:
            found.append(agents.pacemaker(await _cib(), os.uname().nodename, unit_names))
        elif agent is agents.PROXMOX:
            resources, status = _text(_PROXMOX_RESOURCES, missing=""), _text(_PROXMOX_STATUS)
            found.append(agents.proxmox(resources, status))
        elif agent is agents.GANETI:
            found.append(agents.ganeti(_text(_GANETI_PAUSE), time.time()))
        else:
            found.append(SeenAgent(agent.name, None, None))
    return tuple(found)


def process_names() -> frozenset[str]:
    """What the processes of this host are called, those in containers too."""
    pids = filter(str.isdigit, os.listdir("/proc"))
    return frozenset((_text(f"/proc/{pid}/comm") or "").rstrip("\n") for pid in pids)


async def _cib() -> str | None:
    """The cluster's configuration, which may hold passwords: never to be told."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_CIB_COMMAND,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        output, _none = await within(_CIB_SECONDS, process.communicate())
    except asyncio.TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode("utf-8", "replace") if process.returncode == 0 else None


def _text(path: str, missing: str | None = None) -> str | None:
    """A small file; ``missing`` when it is not there, None when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read()
    except FileNotFoundError:
        return missing
    except OSError:
        return None
