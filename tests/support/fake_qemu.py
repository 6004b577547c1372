# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small model of QEMU 10.0's migration, for `ScriptedMonitor`.

It keeps capabilities, parameters, run state, fdsets and a migration's progress, and refuses what
the real one refuses; it runs no guest and writes nothing unless a test gives it a writer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.migration_rules import MigrationSettings
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import (
    CAPABILITIES,
    INFO_RAMBLOCK,
    PARAMETERS,
    SCHEMA,
)
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import (
    Command,
    Emit,
    LinkBroken,
    QmpFailure,
    ReceivedFd,
)

_ADDRESS = re.compile(r"file:/dev/fdset/(\d+),offset=(\d+|0x[0-9a-f]+)")
_Writer = t.Callable[[int, int], None]


@dataclass
class FakeQemu:
    """One QEMU. Every field may be set before a test starts, and read afterwards.

    ``ends_as``: how a migration ends: completed, failed, or never (it stays active until it is
    cancelled). ``progress``: the statuses that query-migrate gives before that end. ``writer`` is
    called with the main channel's fd and the offset in bytes when a save begins. ``ram``: what
    query-migrate counts once a migration completed. ``devices``: QOM properties of each device by
    its path; ``block_devices``: what query-block answers. ``suppress_vmdesc``: the machine's
    property, None on a machine without. ``crashed``: the model died as the real QEMU does, because
    direct-io was on without an O_DIRECT descriptor.
    """

    run_state: str = "running"
    incoming: bool = False
    name: str | None = "model"
    uuid: str = "8b4f0f5e-9d2c-4b53-9c4e-6a1f4b7f0c11"
    machine: str = "pc-i440fx-10.0"
    suppress_vmdesc: bool | None = False
    memory_bytes: int = 64 << 20
    info_ramblock: str = INFO_RAMBLOCK
    schema: list[dict[str, t.Any]] = field(default_factory=lambda: list(SCHEMA))
    block_nodes: list[dict[str, t.Any]] = field(default_factory=list)
    block_devices: list[dict[str, t.Any]] = field(default_factory=list)
    devices: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    block_jobs: list[dict[str, t.Any]] = field(default_factory=list)
    block_exports: list[dict[str, t.Any]] = field(default_factory=list)
    blocked_reasons: list[str] = field(default_factory=list)
    settings: MigrationSettings = field(
        default_factory=lambda: MigrationSettings(dict(CAPABILITIES), dict(PARAMETERS))
    )
    ends_as: str = "completed"
    error_description: str = "Unable to write to file: No space left on device"
    progress: list[str] = field(default_factory=lambda: ["setup", "active", "device"])
    writer: _Writer | None = None
    ram: dict[str, int] = field(default_factory=dict)
    fdsets: dict[int, list[ReceivedFd]] = field(default_factory=dict)
    opaque: dict[int, str] = field(default_factory=dict)
    named_fds: dict[str, ReceivedFd] = field(default_factory=dict)
    crashed: bool = False
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        if self.incoming:
            self.run_state = "inmigrate"
        self._status: str | None = None
        self._left: list[str] = []
        self._was_running = False
        self._settling = 0

    def start_process(self, directory: Path, disk: str | os.PathLike[str] = os.devnull) -> None:
        """Stand-in for QEMU's process: named like one, has ``disk`` open, ends with quit or a
        crash."""
        program = directory / "qemu-model"
        shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
        with open(disk, "rb") as held:
            self.process = subprocess.Popen([program, "3600"], stdin=held)

    def end_process(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def respond(self, command: Command, emit: Emit) -> object:
        """See `Responder`."""
        method = getattr(self, "_" + command.name.replace("-", "_"), None)
        if method is None:
            raise QmpFailure("CommandNotFound", f"The command {command.name} has not been found")
        return method(command, emit)

    # What is asked before anything is changed.

    def _query_status(self, command: Command, emit: Emit) -> object:
        if self.run_state == "finish-migrate":
            self._settling -= 1
            if self._settling < 0:
                self.run_state = "postmigrate"
        return {"status": self.run_state, "running": self.run_state == "running"}

    def _query_version(self, command: Command, emit: Emit) -> object:
        return {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "model"}

    def _query_name(self, command: Command, emit: Emit) -> object:
        return {} if self.name is None else {"name": self.name}

    def _query_uuid(self, command: Command, emit: Emit) -> object:
        return {"UUID": self.uuid}

    def _query_target(self, command: Command, emit: Emit) -> object:
        return {"arch": "x86_64"}

    def _query_kvm(self, command: Command, emit: Emit) -> object:
        return {"enabled": True, "present": True}

    def _query_cpus_fast(self, command: Command, emit: Emit) -> object:
        thread = self.process.pid if self.process is not None else 0
        return [{"cpu-index": 0, "thread-id": thread, "qom-path": "/machine/unattached/device[0]"}]

    def _query_memory_size_summary(self, command: Command, emit: Emit) -> object:
        return {"base-memory": self.memory_bytes, "plugged-memory": 0}

    def _qom_get(self, command: Command, emit: Emit) -> object:
        path, name = command.arguments["path"], command.arguments["property"]
        if path == "/machine/unattached/device[0]" and name == "type":
            return "qemu64-x86_64-cpu"
        if path in self.devices:
            return self.devices[path][name]
        if path != "/machine":
            raise QmpFailure("DeviceNotFound", f"no such path: {command.arguments}")
        values = {"type": f"{self.machine}-machine", "suppress-vmdesc": self.suppress_vmdesc}
        if values.get(name) is None:
            raise QmpFailure("GenericError", f"Property '{self.machine}-machine.{name}' not found")
        return values[name]

    def _qom_list(self, command: Command, emit: Emit) -> object:
        path = command.arguments["path"]
        if path in self.devices:
            return [{"name": name, "type": "string"} for name in self.devices[path]]
        if path not in ("/objects", "/machine/peripheral", "/machine/peripheral-anon"):
            raise QmpFailure("DeviceNotFound", f"no such path: {command.arguments}")
        children = [child for child in self.devices if child.rpartition("/")[0] == path]
        return [
            {"name": "type", "type": "string"},
            *(
                {"name": child.rpartition("/")[2], "type": f"child<{self.devices[child]['type']}>"}
                for child in children
            ),
        ]

    def _query_block(self, command: Command, emit: Emit) -> object:
        return self.block_devices

    def _query_named_block_nodes(self, command: Command, emit: Emit) -> object:
        return self.block_nodes

    def _query_block_jobs(self, command: Command, emit: Emit) -> object:
        return self.block_jobs

    def _query_block_exports(self, command: Command, emit: Emit) -> object:
        return self.block_exports

    def _query_qmp_schema(self, command: Command, emit: Emit) -> object:
        return self.schema

    def _human_monitor_command(self, command: Command, emit: Emit) -> object:
        if command.arguments["command-line"] != "info ramblock":
            return f"unknown command: '{command.arguments['command-line']}'\r\n"
        return self.info_ramblock

    # Settings and file descriptors.

    def _query_migrate_capabilities(self, command: Command, emit: Emit) -> object:
        states = self.settings.capabilities.items()
        return [{"capability": name, "state": on} for name, on in states]

    def _query_migrate_parameters(self, command: Command, emit: Emit) -> object:
        return dict(self.settings.parameters)

    def _migrate_set_capabilities(self, command: Command, emit: Emit) -> object:
        if self._is_migrating():
            raise QmpFailure("GenericError", "There's a migration process in progress")
        self.settings.set_capabilities(command.arguments["capabilities"])
        return {}

    def _migrate_set_parameters(self, command: Command, emit: Emit) -> object:
        self.settings.set_parameters(command.arguments)
        return {}

    def _add_fd(self, command: Command, emit: Emit) -> object:
        if not command.fds:
            raise QmpFailure("GenericError", "No file descriptor supplied via SCM_RIGHTS")
        unused = next(number for number in range(len(self.fdsets) + 1) if number not in self.fdsets)
        fdset_id = command.arguments.get("fdset-id", unused)
        self.fdsets.setdefault(fdset_id, []).append(command.fds[-1])
        self.opaque[fdset_id] = command.arguments.get("opaque", "")
        return {"fdset-id": fdset_id, "fd": command.fds[-1].fd}

    def _query_fdsets(self, command: Command, emit: Emit) -> object:
        return [
            {
                "fdset-id": number,
                "fds": [
                    {"fd": received.fd, "opaque": self.opaque.get(number, "")}
                    for received in members
                ],
            }
            for number, members in self.fdsets.items()
        ]

    def _remove_fd(self, command: Command, emit: Emit) -> object:
        if self.fdsets.pop(command.arguments["fdset-id"], None) is None:
            wanted = f"fdset-id:{command.arguments['fdset-id']}"
            raise QmpFailure("GenericError", f"File descriptor named '{wanted}' not found")
        return {}

    def _getfd(self, command: Command, emit: Emit) -> object:
        if not command.fds:
            raise QmpFailure("GenericError", "No file descriptor supplied via SCM_RIGHTS")
        self.named_fds[command.arguments["fdname"]] = command.fds[-1]
        return {}

    def _closefd(self, command: Command, emit: Emit) -> object:
        name = command.arguments["fdname"]
        if self.named_fds.pop(name, None) is None:
            raise QmpFailure("GenericError", f"File descriptor named '{name}' not found")
        return {}

    # The guest and its migration.

    def _stop(self, command: Command, emit: Emit) -> object:
        if self.run_state == "running":
            self.run_state = "paused"
            emit("STOP", {})
        return {}

    def _cont(self, command: Command, emit: Emit) -> object:
        if self.run_state == "finish-migrate":
            raise QmpFailure("GenericError", "Migration is not finalized yet")
        if self.run_state != "inmigrate":
            self.run_state = "running"
            emit("RESUME", {})
        return {}

    def _quit(self, command: Command, emit: Emit) -> object:
        emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        self.end_process()
        raise LinkBroken(answer={})

    def _migrate(self, command: Command, emit: Emit) -> object:
        if self.blocked_reasons:
            raise QmpFailure("GenericError", self.blocked_reasons[0])
        if self.run_state in ("inmigrate", "postmigrate") or self._is_migrating():
            raise QmpFailure("GenericError", f"The model does not migrate when {self.run_state}")
        fd, offset = self._channel(command.arguments["uri"], os.O_WRONLY)
        if self.writer is not None:
            self.writer(fd, offset)
        self._was_running = self.run_state == "running"
        self._begin(emit)
        return {}

    def _migrate_incoming(self, command: Command, emit: Emit) -> object:
        if self.run_state != "inmigrate":
            raise QmpFailure("GenericError", "'-incoming' was not specified on the command line")
        if self._status is not None:
            raise QmpFailure("GenericError", "The incoming migration has already been started")
        self._channel(command.arguments["uri"], os.O_RDONLY)
        self._begin(emit)
        return {}

    def _query_migrate(self, command: Command, emit: Emit) -> object:
        if self._left:
            self._change(self._left.pop(0), emit)
        elif self._is_migrating() and self.ends_as != "never":
            self._end(self.ends_as, emit)
        reply: dict[str, t.Any] = {}
        if self._status is not None:
            reply["status"] = self._status
        if self._status == "failed":
            reply["error-desc"] = self.error_description
        if self._status == "completed" and self.ram:
            reply["ram"] = self.ram
        if self.blocked_reasons:
            reply["blocked-reasons"] = self.blocked_reasons
        return reply

    def _migrate_cancel(self, command: Command, emit: Emit) -> object:
        if self._is_migrating():
            self._left = []
            self._end("cancelled", emit)
        return {}

    def _is_migrating(self) -> bool:
        return self._status not in (None, "completed", "failed", "cancelled")

    def _begin(self, emit: Emit) -> None:
        first, *self._left = self.progress
        self._change(first, emit)

    def _change(self, status: str, emit: Emit) -> None:
        self._status = status
        if self.settings.capabilities.get("events"):
            emit("MIGRATION", {"status": status})

    def _end(self, status: str, emit: Emit) -> None:
        self._change(status, emit)
        if self.incoming:
            self.run_state = "paused" if status == "completed" else "inmigrate"
        elif status == "completed":
            self.run_state, self._settling = "finish-migrate", 1
        elif self._was_running:
            self.run_state = "running"

    def _channel(self, address: str, access_mode: int) -> tuple[int, int]:
        """The main channel's fd and offset, chosen from the fdset as QEMU chooses."""
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise QmpFailure("GenericError", f"unknown migration protocol: {address}")
        members = self.fdsets.get(int(found[1]))
        if members is None:
            raise QmpFailure("GenericError", f"Failed to find fdset /dev/fdset/{found[1]}")
        main = [m.fd for m in members if m.access_mode == access_mode and not m.direct]
        direct = [m.fd for m in members if m.access_mode == access_mode and m.direct]
        missing = "Failed to find file descriptor with matching flags"
        if not main:
            raise QmpFailure("GenericError", f"{missing}={access_mode:#x}")
        if self.settings.wants_direct_channels() and not direct:
            if access_mode == os.O_RDONLY:
                raise QmpFailure("GenericError", f"{missing}={access_mode | os.O_DIRECT:#x}")
            self.crashed = True
            self.end_process()
            raise LinkBroken
        return main[0], int(found[2], 0)
