# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""One look at a guest through its monitor: everything a plan is made from."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

from .._errors import QmpCommandError
from ._block_graph import BlockNode, parse_block_nodes
from ._confinement import UNCONFINED, Confinement, confinement_of
from ._description import Description, Hardware, query_hardware
from ._monitor import Monitor
from ._negotiation import Offer
from ._process import ProcessIdentity, identify, thread_group
from ._ram_blocks import LiveRamBlock, parse_info_ramblock
from ._surroundings import Surroundings
from ._surroundings import observe as observe_surroundings

NIL_UUID = "00000000-0000-0000-0000-000000000000"
_MACHINE_SUFFIX = "-machine"
# Filenames of nodes that lead to nothing in a filesystem.
_NO_PATHS = ("/dev/fdset/", "json:")


@dataclass(frozen=True)
class Guest:
    """A guest at one moment.

    ``name`` and ``uuid`` are None when QEMU was given none (an all-zero UUID is none);
    ``process`` is None when QEMU's process cannot be seen from here (other pid namespace).
    ``machine_type`` is resolved, such as ``pc-q35-10.0``. ``missing_files`` are names of disk
    files that no longer exist on this host. ``suppresses_vmdesc``: the stream it writes ends
    without the description of the device state. ``surroundings``: how its QEMU is run, None where
    that cannot be seen. ``confinement``: what binds its QEMU beside its user.
    """

    qmp_socket: str
    process: ProcessIdentity | None
    name: str | None
    uuid: str | None
    run_state: str
    qemu_version: str
    machine_type: str
    architecture: str
    accelerator: str
    memory_bytes: int
    vcpus: int
    migration_status: str | None
    blocked_reasons: tuple[str, ...]
    offer: Offer
    block_nodes: tuple[BlockNode, ...]
    block_jobs: tuple[t.Mapping[str, t.Any], ...]
    block_exports: tuple[t.Mapping[str, t.Any], ...]
    missing_files: frozenset[str]
    ram_blocks: tuple[LiveRamBlock, ...]
    suppresses_vmdesc: bool = False
    hardware: Hardware | None = None
    surroundings: Surroundings | None = None
    confinement: Confinement = UNCONFINED

    @property
    def description(self) -> Description:
        """What it is made of, to be compared with what was saved."""
        blocks = tuple((block.name, block.used_bytes) for block in self.ram_blocks)
        return Description(self.machine_type, self.uuid, blocks, frozenset(), self.hardware)

    @property
    def ram_bytes(self) -> int:
        """Bytes of all RAM blocks together: what an image holds at most, beside metadata."""
        return sum(block.used_bytes for block in self.ram_blocks)


def offers_exit_on_error(schema: t.Sequence[t.Mapping[str, t.Any]]) -> bool:
    """Whether migrate-incoming knows exit-on-error (QEMU 9.1), told by query-qmp-schema."""
    by_name = {entry["name"]: entry for entry in schema}
    arguments = by_name.get("migrate-incoming", {}).get("arg-type")
    members = by_name.get(arguments, {}).get("members", [])
    return any(member["name"] == "exit-on-error" for member in members)


async def query_offer(monitor: Monitor, *, incoming: bool) -> Offer:
    """Capabilities and parameters as they are now; the schema only where it matters."""
    capabilities = await monitor.execute("query-migrate-capabilities")
    parameters = await monitor.execute("query-migrate-parameters")
    schema = await monitor.execute("query-qmp-schema") if incoming else []
    return Offer(
        capabilities={entry["capability"]: entry["state"] for entry in capabilities},
        parameters=dict(parameters),
        migrate_incoming_exit_on_error=offers_exit_on_error(schema),
    )


def _process_of(peer_pid: int, cpus: t.Sequence[t.Mapping[str, t.Any]]) -> int | None:
    """QEMU's pid: the group of its vCPU threads, else who answered on the socket.

    A proxy in front of the monitor would be the peer; vCPU threads are always QEMU's own.
    """
    for cpu in cpus:
        group = thread_group(cpu.get("thread-id", 0))
        if group is not None and (peer_pid in (0, group) or _is_qemu(group)):
            return group
    return peer_pid or None


def _is_qemu(pid: int) -> bool:
    try:
        return "qemu" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def _missing_files(
    nodes: t.Iterable[BlockNode], pid: int | None, directory: str | None
) -> frozenset[str]:
    """Files of disks that are gone from where QEMU opened them, or have another in their place.

    Names are QEMU's: relative to the ``directory`` it was started in, in its mount namespace. One
    that cannot be looked at (permission, an fdset) does not count as gone.
    """
    files = (node.filename for node in nodes if node.driver == "file" and node.filename)
    held = _open_files(pid) if pid is not None else frozenset()
    return frozenset(name for name in files if _is_gone(name, pid, directory, held))


def _open_files(pid: int) -> frozenset[tuple[int, int]]:
    """Device and inode of every file that a process has open; empty where nobody may look."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{fd}")
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _is_gone(
    name: str, pid: int | None, directory: str | None, held: frozenset[tuple[int, int]]
) -> bool:
    if name.startswith(_NO_PATHS) or (directory is None and not os.path.isabs(name)):
        return False
    path = os.path.join(directory or "/", name)
    places = [path] if pid is None else [path, f"/proc/{pid}/root{path}"]
    for place in places:
        try:
            status = os.stat(place)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if not held or (status.st_dev, status.st_ino) in held:
            return False
    return True


async def _suppresses_vmdesc(monitor: Monitor) -> bool:
    try:
        value = await monitor.execute(
            "qom-get", {"path": "/machine", "property": "suppress-vmdesc"}
        )
    except QmpCommandError:  # this machine has no such property
        return False
    return value is True


async def observe(monitor: Monitor, *, incoming: bool = False) -> Guest:
    """Ask QEMU everything at once; ``incoming``: it waits as the destination of a restore."""
    ask = monitor.execute
    migration = await ask("query-migrate")
    # In this order: a migration that has completed has moved the run state on before.
    status = (await ask("query-status"))["status"]
    version = (await ask("query-version"))["qemu"]
    machine_qom_type = await ask("qom-get", {"path": "/machine", "property": "type"})
    cpus = await ask("query-cpus-fast")
    memory = await ask("query-memory-size-summary")
    nodes = parse_block_nodes(await ask("query-named-block-nodes", {"flat": True}))
    uuid = (await ask("query-uuid"))["UUID"].lower()
    pid = _process_of(monitor.peer_pid, cpus)
    process = identify(pid) if pid else None
    surroundings = observe_surroundings(process) if process is not None else None
    directory = surroundings.cwd if surroundings is not None else None
    return Guest(
        qmp_socket=monitor.path,
        process=process,
        name=(await ask("query-name")).get("name"),
        uuid=None if uuid == NIL_UUID else uuid,
        run_state=status,
        qemu_version=f"{version['major']}.{version['minor']}.{version['micro']}",
        machine_type=_strip(machine_qom_type, _MACHINE_SUFFIX),
        architecture=(await ask("query-target"))["arch"],
        accelerator="kvm" if (await ask("query-kvm"))["enabled"] else "qemu",
        memory_bytes=memory["base-memory"] + memory.get("plugged-memory", 0),
        vcpus=len(cpus),
        migration_status=migration.get("status"),
        blocked_reasons=tuple(migration.get("blocked-reasons", ())),
        offer=await query_offer(monitor, incoming=incoming),
        block_nodes=nodes,
        block_jobs=tuple(await ask("query-block-jobs")),
        block_exports=tuple(await ask("query-block-exports")),
        missing_files=_missing_files(nodes, pid, directory),
        ram_blocks=parse_info_ramblock(await monitor.human("info ramblock")),
        suppresses_vmdesc=await _suppresses_vmdesc(monitor),
        hardware=await query_hardware(monitor, cpus, directory),
        surroundings=surroundings,
        confinement=confinement_of(pid) if pid else UNCONFINED,
    )


def _strip(text: str, suffix: str) -> str:
    return text[: -len(suffix)] if text.endswith(suffix) else text
