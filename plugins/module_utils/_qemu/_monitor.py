# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The monitor: one client's session on a QMP UNIX socket.

The only file that imports qemu.qmp. QEMU serves one client a socket; a second one is left
waiting for a greeting that never comes (spec/qemu.md 0.10), so everything here has a timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import traceback
import typing as t

from .._errors import MonitorError, QmpCommandError
from .._uninterrupted import within
from ._guest_lock import refuse_locked
from ._process import identify

QMP_MINIMUM_VERSION = "0.0.3"
QMP_IMPORT_ERROR: str | None = None
try:
    from qemu.qmp import (
        ConnectError,
        EventListener,
        ExecInterruptedError,
        ExecuteError,
        QMPClient,
        QMPError,
        Runstate,
    )
except ImportError:
    QMP_IMPORT_ERROR = traceback.format_exc()

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 60.0
_UNIX_PATH_BYTES = 107
_RETRY_SECONDS = 0.05


class NoListener(MonitorError):
    """Nothing listens on the socket: no such file, or its server is gone."""


class MonitorHeld(MonitorError):
    """Another client has the monitor, which serves one at a time."""


class _NotQmp(MonitorError):
    """What came first on the connection was no greeting."""


class MonitorLost(MonitorError):
    """The connection broke while it was in use."""


def _absent(path: str, exc: OSError) -> NoListener:
    return NoListener(
        f"Nothing listens on the monitor socket {path} ({exc.strerror}).", qmp_socket=path
    )


def _held(path: str, timeout_seconds: float) -> MonitorHeld:
    return MonitorHeld(
        f"The monitor {path} accepted a connection but sent no greeting within "
        f"{timeout_seconds:g} s. A QMP socket serves one client at a time: another client "
        "(virsh, a monitoring agent, a second run of this module) probably holds it. "
        "Disconnect that client, or give QEMU a second -qmp socket for it.",
        qmp_socket=path,
    )


async def _connect(sock: socket.socket, path: str) -> None:
    # Full of waiting clients, a UNIX socket refuses at once with EAGAIN (unix(7)), which asyncio
    # would take for a connection under way.
    while True:
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            await asyncio.sleep(_RETRY_SECONDS)


async def _open_socket(path: str, timeout_seconds: float) -> socket.socket:
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise MonitorError(
            f"The monitor path {path} is longer than the {_UNIX_PATH_BYTES} bytes that a UNIX "
            "socket address holds; use a shorter one.",
            qmp_socket=path,
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        await asyncio.wait_for(_connect(sock, path), timeout_seconds)
    except asyncio.TimeoutError:
        sock.close()
        raise _held(path, timeout_seconds) from None
    except OSError as exc:
        sock.close()
        if exc.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise _absent(path, exc) from exc
        raise MonitorError(
            f"Cannot connect to the monitor {path}: {exc.strerror}. The user that runs the "
            "module needs write permission on the socket (become, or the guest's own user).",
            qmp_socket=path,
        ) from exc
    except BaseException:
        sock.close()
        raise
    return sock


async def _greet(sock: socket.socket, path: str, timeout_seconds: float) -> QMPClient:
    # Made inside the coroutine: on Python 3.8 and 3.9 its queue binds to the running loop.
    client = QMPClient("vmfleet")
    try:
        await within(timeout_seconds, client.connect(sock))
    except asyncio.TimeoutError:
        raise _held(path, timeout_seconds) from None
    except ConnectError as exc:
        raise _NotQmp(f"The socket {path} did not speak QMP: {exc}.", qmp_socket=path) from exc
    finally:
        if client.greeting is None:
            sock.close()
    return client


class Monitor:
    """A connected session. ``path``: the socket; ``peer_pid``: who answered, 0 if unknown."""

    def __init__(self, path: str, client: QMPClient, peer_pid: int) -> None:
        self.path = path
        self.peer_pid = peer_pid
        self._client = client
        self._listeners: list[EventListener] = []

    @classmethod
    async def connect(cls, path: str, timeout_seconds: float = CONNECT_SECONDS) -> Monitor:
        """Open the socket and negotiate.

        Raises `NoListener` when nothing listens, `GuestLocked` when another run of ours holds it,
        `MonitorHeld` when another client does, `MonitorError` when permission is missing or the
        peer does not speak QMP.
        """
        try:
            return await cls._connect_once(path, timeout_seconds)
        except _NotQmp:
            # An event meant for the client before us can overtake the greeting: QEMU forgets that
            # client's session only when it greets the next one (monitor/qmp.c). Seen once.
            return await cls._connect_once(path, timeout_seconds)

    @classmethod
    async def _connect_once(cls, path: str, timeout_seconds: float) -> Monitor:
        sock = await _open_socket(path, timeout_seconds)
        size = struct.calcsize("3i")
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        peer_pid = int(struct.unpack("3i", peer)[0])
        try:
            client = await _greet(sock, path, timeout_seconds)
        except MonitorHeld:
            refuse_locked(identify(peer_pid), path)
            raise
        return cls(path, client, peer_pid)

    async def reconnect(self, timeout_seconds: float = CONNECT_SECONDS) -> None:
        """A new session on the same socket, after the old one broke."""
        await self.close()
        fresh = await Monitor.connect(self.path, timeout_seconds)
        for listener in self._listeners:
            fresh._client.register_listener(listener)
        self._client, self.peer_pid = fresh._client, fresh.peer_pid

    async def execute(
        self,
        command: str,
        arguments: t.Mapping[str, object] | None = None,
        timeout_seconds: float | None = COMMAND_SECONDS,
    ) -> t.Any:
        """Run one QMP command and return its ``return`` value; None waits without end.

        Raises `QmpCommandError` for QEMU's own refusal, `MonitorLost` when the connection broke,
        `MonitorError` when no answer came in time.
        """
        plain = dict(arguments) if arguments is not None else None
        try:
            return await within(timeout_seconds, self._client.execute(command, plain))
        except ExecuteError as exc:
            raise QmpCommandError(command, exc.error_class, str(exc)) from exc
        except asyncio.TimeoutError:
            raise MonitorError(
                f"QEMU did not answer {command} on {self.path} within {timeout_seconds:g} s.",
                qmp_socket=self.path,
                qmp_command=command,
            ) from None
        except (ExecInterruptedError, QMPError, EOFError, OSError) as exc:
            raise MonitorLost(
                f"The connection to the monitor {self.path} broke during {command} ({exc}).",
                qmp_socket=self.path,
                qmp_command=command,
            ) from exc

    async def human(self, line: str) -> str:
        """Output of one command of the human monitor."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    async def add_fd(self, fd: int, fdset_id: int | None, opaque: str) -> int:
        """Give QEMU a duplicate of ``fd`` in a new or an existing fdset; returns the set's id.

        ``opaque`` is kept with it. One at a time: QEMU keeps only the newest unclaimed fd
        (spec/qemu.md 5).
        """
        arguments: dict[str, object] = {"opaque": opaque}
        if fdset_id is not None:
            arguments["fdset-id"] = fdset_id
        self._send_fd(fd)
        return int((await self.execute("add-fd", arguments))["fdset-id"])

    async def get_fd(self, fd: int, name: str) -> None:
        """Give QEMU a duplicate of ``fd`` by name, for one ``fd:NAME`` migration."""
        self._send_fd(fd)
        await self.execute("getfd", {"fdname": name})

    def _send_fd(self, fd: int) -> None:
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError, AssertionError) as exc:
            raise MonitorLost(
                f"Could not pass a file descriptor to the monitor {self.path} ({exc}).",
                qmp_socket=self.path,
            ) from exc

    @contextlib.contextmanager
    def migration_events(self) -> t.Iterator[MigrationEvents]:
        """Hear MIGRATION events for as long as the context is open, in every session."""
        listener = EventListener("MIGRATION")
        self._client.register_listener(listener)
        self._listeners.append(listener)
        try:
            yield MigrationEvents(self, listener)
        finally:
            self._listeners.remove(listener)
            self._client.remove_listener(listener)

    async def close(self) -> None:
        """End the session. A link that is already broken is not an error here."""
        with contextlib.suppress(QMPError, EOFError, OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), 5)


class MigrationEvents:
    """A hint that a migration's status may have changed."""

    def __init__(self, monitor: Monitor, listener: EventListener) -> None:
        self._monitor = monitor
        self._listener = listener

    async def wait(self, timeout_seconds: float) -> None:
        """Return at the next event, when the connection breaks, or after ``timeout_seconds``."""
        client = self._monitor._client
        # get() alone never returns after a disconnect, so it races with the link's state.
        waits = [
            asyncio.ensure_future(self._listener.get()),
            asyncio.ensure_future(client.runstate_changed()),
        ]
        try:
            await asyncio.sleep(0)  # both wait from here on
            if client.runstate is Runstate.RUNNING:  # else it broke and changes no more
                await asyncio.wait(
                    waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
