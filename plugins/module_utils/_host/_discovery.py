# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Finding all guests of a host: by the monitors that answer, and by what libvirt knows."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import LibvirtError, MonitorError, Refused, VmfleetError
from .._libvirt._connection import Connection
from .._libvirt._domain import Domain
from .._libvirt._traps import blockers_of
from .._qemu._guest import Guest, observe
from .._qemu._monitor import Monitor, NoListener
from .._qemu._secrets import hide_in
from .._qemu._systemd_guest import unit_of_process
from .._save._domain_plan import check_domain
from .._save._plan import METADATA_BYTES, check_guest
from .._saveimage._domain_machine import machine_of
from .._uninterrupted import uninterrupted
from ._estimate import largest_with, read_mappings, resident_bytes
from ._guests import HostGuest, Source
from ._together import at_most

_AT_ONCE = 32
_GREETING_SECONDS = 5.0


class Unanswered(t.NamedTuple):
    """``dead``: nobody listens there, so that no guest is behind it."""

    path: str
    reason: str
    dead: bool


@dataclass(frozen=True)
class Found:
    """Guests by name. ``unanswered``: sockets that told nothing."""

    guests: tuple[HostGuest, ...]
    unanswered: tuple[Unanswered, ...] = ()


async def discover(qmp_sockets: t.Sequence[str], uri: str | None) -> Found:
    """All guests behind sockets (globs) and of a libvirt daemon. Raises `LibvirtError` and
    `Refused` where the daemon cannot be asked.

    Each monitor is held for one look. A guest that is found twice is one, and libvirt's where that
    owns it.
    """
    looked = await at_most(_AT_ONCE, [_ask(path) for path in sockets(qmp_sockets)])
    over_qmp = [one for one in looked if isinstance(one, HostGuest)]
    unanswered = tuple(one for one in looked if isinstance(one, Unanswered))
    domains = await _domains(uri) if uri is not None else []
    guests = once([*domains, *over_qmp])
    return Found(tuple(sorted(guests, key=lambda one: (one.name, one.key))), unanswered)


def once(guests: t.Iterable[HostGuest]) -> list[HostGuest]:
    """Each guest but once, the first that was found: by its process, else by its UUID."""
    kept: list[HostGuest] = []
    for guest in guests:
        twin = any(
            (guest.pid is not None and guest.pid == other.pid)
            or (None in (guest.pid, other.pid) and guest.uuid and guest.uuid == other.uuid)
            for other in kept
        )
        if not twin:
            kept.append(guest)
    return kept


def sockets(patterns: t.Iterable[str]) -> list[str]:
    """Paths of sockets that the globs match, each once, in order."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    return [path for path in paths if _is_socket(path)]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


async def _ask(path: str) -> HostGuest | Unanswered:
    try:
        monitor = await Monitor.connect(path, _GREETING_SECONDS)
    except MonitorError as exc:
        return Unanswered(path, exc.message, isinstance(exc, NoListener))
    try:
        return _described(path, await observe(monitor))
    except MonitorError as exc:
        return Unanswered(path, exc.message, False)
    finally:
        await uninterrupted(monitor.close())


def _described(path: str, guest: Guest) -> HostGuest:
    pid = guest.process.pid if guest.process is not None else None
    blocks = [(block.host_address, block.used_bytes) for block in guest.ram_blocks]
    resident = resident_bytes(read_mappings(pid), blocks) if pid is not None else None
    membership = unit_of_process(pid) if pid is not None else None
    refusal = None
    try:
        check_guest(frozenset(), guest)
    except Refused as exc:
        refusal = exc.message
    files = {node.filename for node in guest.block_nodes if node.filename and node.driver != "raw"}
    return HostGuest(
        name=guest.name or path,
        uuid=guest.uuid,
        source=Source(qmp_socket=path),
        state=guest.run_state,
        pid=pid,
        memory_bytes=guest.memory_bytes,
        resident_bytes=resident,
        estimated_bytes=_estimated(guest.ram_bytes, resident),
        disks=tuple(sorted(hide_in(name) for name in files)),
        blockers=guest.blocked_reasons,
        cannot_save=refusal,
        unit=membership.unit.name if membership is not None else None,
        hypervisor=guest.qemu_version,
    )


def _estimated(ram_bytes: int, resident: int | None) -> int | None:
    return min(ram_bytes, resident) + METADATA_BYTES if resident is not None else None


async def _domains(uri: str) -> list[HostGuest]:
    connection = await Connection.open(uri)
    try:
        pids = pids_by_uuid()
        return [
            await _domain(uri, connection, domain, pids) for domain in await connection.active()
        ]
    finally:
        await uninterrupted(connection.close())


async def _domain(
    uri: str, connection: Connection, domain: Domain, pids: t.Mapping[str, int]
) -> HostGuest:
    machine = None
    with contextlib.suppress(VmfleetError):  # it ends just now, which its own save will tell
        machine = machine_of(await connection.description(domain.uuid))
    pid = pids.get(domain.uuid)
    resident = largest_with(read_mappings(pid), domain.memory_bytes) if pid is not None else None
    refusal = None
    blockers: tuple[str, ...] = ()
    try:
        check_domain(domain)  # a job would keep QEMU from being asked
        blockers = await blockers_of(connection, domain.uuid)
        check_domain(domain, blockers)
    except (Refused, LibvirtError) as exc:
        refusal = exc.message
    return HostGuest(
        name=domain.name,
        uuid=domain.uuid,
        source=Source(uri=uri, domain=domain.name),
        state=domain.state,
        pid=pid,
        memory_bytes=domain.memory_bytes,
        resident_bytes=resident,
        estimated_bytes=_estimated(domain.memory_bytes, resident),
        disks=tuple(sorted(machine.disk_files)) if machine is not None else (),
        blockers=blockers,
        cannot_save=refusal,
        autostart=domain.autostart,
        persistent=domain.persistent,
        hypervisor=connection.hypervisor,
    )


def pids_by_uuid() -> dict[str, int]:
    """Processes with an argument -uuid, as libvirt gives to each QEMU."""
    found: dict[str, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as cmdline:
                argv = cmdline.read().split(b"\0")
                for option, value in zip(argv, argv[1:]):
                    if option == b"-uuid":
                        found[os.fsdecode(value).lower()] = int(name)
    return found
