# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model guest on a scripted monitor that writes real mapped-ram streams."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import (
    SavedImage,
    describe_target,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import (
    ProcessIdentity,
    identify,
)
from ansible_collections.vmfleet.suspend.tests.support.fake_qemu import FakeQemu
from ansible_collections.vmfleet.suspend.tests.support.images import PAGE, Block, write_mapped
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import (
    Command,
    Emit,
    LinkBroken,
)

BLOCK = Block("pc.ram", 64, {1: b"\x11" * PAGE, 40: b"\x22" * PAGE})
RAM_BYTES = BLOCK.page_count * PAGE
INFO_RAMBLOCK = (
    "              Block Name    PSize              Offset               Used"
    "              Total                HVA  RO\r\n"
    f"                  pc.ram    4 KiB  0x0000000000000000 0x{RAM_BYTES:016x}"
    f" 0x{RAM_BYTES:016x} 0x00007fa4cfe00000  rw\r\n"
)

_Result = t.TypeVar("_Result")


def write_stream(fd: int, offset_bytes: int) -> None:
    """What QEMU writes behind ``fd``: a whole stream of `BLOCK`, absent pages as holes."""
    stream = _stream(offset_bytes)
    for start in range(0, len(stream), PAGE):
        page = stream[start : start + PAGE]
        if page.count(0) != len(page):
            os.pwrite(fd, page, offset_bytes + start)
    os.ftruncate(fd, offset_bytes + len(stream))


def write_short_stream(fd: int, offset_bytes: int) -> None:
    """The same without its end."""
    write_stream(fd, offset_bytes)
    os.ftruncate(fd, os.fstat(fd).st_size - 64)


@functools.lru_cache(maxsize=8)
def _stream(offset_bytes: int) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "stream")
        write_mapped(path, [BLOCK], prefix=bytes(offset_bytes))
        return path.read_bytes()[offset_bytes:]


def identity_of(pid: int) -> ProcessIdentity:
    """Who ``pid`` is; it must live."""
    process = identify(pid)
    assert process is not None
    return process


def described(path: os.PathLike[str]) -> SavedImage:
    """The image at ``path``, which must be there."""
    image = describe_target(os.fspath(path))
    assert image is not None
    return image


@dataclass
class ModelGuest:
    """The model, its monitor and the socket they are reached by."""

    qemu: FakeQemu
    monitor: ScriptedMonitor
    qmp_socket: Path

    @property
    def identity(self) -> ProcessIdentity:
        """The model's process, which must still live."""
        assert self.qemu.process is not None
        return identity_of(self.qemu.process.pid)

    def crash(self) -> None:
        """An action: the process ends and the connection with it."""
        self.qemu.end_process()
        raise LinkBroken

    @property
    def commands(self) -> list[str]:
        """Names of the commands that change something, in order."""
        return [
            name
            for name in self.monitor.names
            if not name.startswith(("query-", "qom-", "human-monitor-command"))
        ]


@contextlib.contextmanager
def model_guest(
    directory: Path, qmp_socket: Path | None = None, **fields: t.Any
) -> t.Iterator[ModelGuest]:
    """A running guest of `BLOCK`; ``fields`` are those of `FakeQemu`."""
    fields.setdefault("writer", write_stream)
    path = qmp_socket or directory / "qmp"
    qemu = FakeQemu(memory_bytes=RAM_BYTES, info_ramblock=INFO_RAMBLOCK, **fields)
    qemu.start_process(directory)
    try:
        with ScriptedMonitor(path, qemu) as monitor:
            yield ModelGuest(qemu, monitor, path)
    finally:
        qemu.end_process()


def with_monitor(
    qmp_socket: Path,
    work: t.Callable[[Monitor], t.Awaitable[_Result]],
    timeout_seconds: float = 5.0,
) -> _Result:
    """Run ``work`` on a connected monitor, in an event loop of its own."""

    async def session() -> _Result:
        monitor = await Monitor.connect(str(qmp_socket), timeout_seconds)
        try:
            return await work(monitor)
        finally:
            await monitor.close()

    return asyncio.run(session())


def once(
    guest: ModelGuest,
    command: str,
    action: t.Callable[[], None],
    *,
    after: str | None = None,
    first: bool = False,
) -> None:
    """Run ``action`` when the model has carried out ``command`` and before it answers; with
    ``first`` before it carries it out. Only the first time, and only once ``after`` has come."""
    respond, pending = guest.qemu.respond, [action]

    def responding(received: Command, emit: Emit) -> object:
        due = received.name == command and after in (None, *guest.monitor.names)
        if due and pending and first:
            pending.pop()()
        value = respond(received, emit)
        if due and pending:
            pending.pop()()
        return value

    setattr(guest.qemu, "respond", responding)  # noqa: B010  mypy refuses the plain assignment


def break_link() -> None:
    """An action: the connection breaks, the next client is served."""
    raise ConnectionAbortedError
