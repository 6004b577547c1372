# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scripted QMP monitor on a real UNIX socket.

A test says what comes and what is answered::

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("stop").returns({}).emits("STOP")
        monitor.expect("migrate").fails("GenericError", "State blocked")
        ...

Without a responder the commands must come in exactly that order, and all of them. With one
(`FakeQemu` of fake_qemu.py) everything is answered by it, but for the commands that a test
expects: those are answered as scripted when they come. Like QEMU it serves one client at a time
and keeps only the newest file descriptors that no command has claimed yet.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
import types
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.qmp_command import (
    Command,
    LinkBroken,
    QmpFailure,
    ReceivedFd,
    Responder,
)

GREETING: t.Mapping[str, t.Any] = {
    "QMP": {
        "version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "scripted"},
        "capabilities": ["oob"],
    }
}
_MOST_FDS = 16


_Reaction = t.Callable[["ScriptedMonitor", object], None]


@dataclass
class Expectation:
    """One expected command and the reactions to it, which run in the order they were said."""

    name: str
    arguments: t.Mapping[str, t.Any] | None
    reactions: list[_Reaction] = field(default_factory=list)

    def returns(self, value: object) -> Expectation:
        return self._then(lambda monitor, tag: monitor.send({"return": value, "id": tag}))

    def fails(self, error_class: str, description: str) -> Expectation:
        error = {"class": error_class, "desc": description}
        return self._then(lambda monitor, tag: monitor.send({"error": error, "id": tag}))

    def emits(self, event: str, data: t.Mapping[str, t.Any] | None = None) -> Expectation:
        return self._then(lambda monitor, tag: monitor.emit(event, data or {}))

    def hangs(self) -> Expectation:
        """No answer, to this command or any later one of this client."""
        return self._then(lambda monitor, tag: monitor.fall_silent())

    def disconnects(self) -> Expectation:
        """The link breaks; the next client is served."""

        def disconnect(monitor: ScriptedMonitor, tag: object) -> None:
            raise ConnectionAbortedError

        return self._then(disconnect)

    def _then(self, reaction: _Reaction) -> Expectation:
        self.reactions.append(reaction)
        return self


class ScriptedMonitor:
    """The server. ``commands`` holds what came, in order and without qmp_capabilities.

    ``greeting``: None accepts clients without a word, like a QEMU whose one client is another;
    bytes are sent as they are.
    """

    def __init__(
        self,
        path: Path,
        responder: Responder | None = None,
        greeting: t.Mapping[str, t.Any] | bytes | None = types.MappingProxyType(GREETING),
    ) -> None:
        self.path = path
        self.commands: list[Command] = []
        self.enabled_capabilities: list[str] = []
        self._responder = responder
        self._greeting = greeting
        self._expected: list[Expectation] = []
        self._complaints: list[str] = []
        self._fds: list[ReceivedFd] = []
        self._unclaimed: tuple[ReceivedFd, ...] = ()
        self._silent = False
        self._client: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve, name="scripted-monitor", daemon=True)

    @property
    def names(self) -> list[str]:
        """The names of the commands that came, in order."""
        return [command.name for command in self.commands]

    def expect(self, name: str, arguments: t.Mapping[str, t.Any] | None = None) -> Expectation:
        """The command that must come next (with a responder: some time); None: any arguments."""
        expectation = Expectation(name, arguments)
        self._expected.append(expectation)
        return expectation

    def send(self, message: t.Mapping[str, t.Any]) -> None:
        if self._client is not None and not self._silent:
            self._client.sendall(json.dumps(message).encode() + b"\r\n")

    def emit(self, event: str, data: t.Mapping[str, t.Any]) -> None:
        """Send an event to the client, if there is one."""
        stamp = {"seconds": 0, "microseconds": 0}
        self.send({"event": event, "data": dict(data), "timestamp": stamp})

    def fall_silent(self) -> None:
        self._silent = True

    def __enter__(self) -> ScriptedMonitor:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._shut_down()
        self._thread.join(10)
        for received in self._fds:
            os.close(received.fd)
        if kind is None:
            missing = [expectation.name for expectation in self._expected]
            assert not self._complaints, "; ".join(self._complaints)
            assert not missing, f"these commands never came: {missing}"

    def _shut_down(self) -> None:
        for sock in (self._listener, self._client):
            if sock is not None:
                with contextlib.suppress(OSError):  # gone already
                    sock.shutdown(socket.SHUT_RDWR)

    # The rest runs in the server's thread.

    def _serve(self) -> None:
        with self._listener:
            while True:
                try:
                    client, _address = self._listener.accept()
                except OSError:
                    return
                with client:
                    self._client, self._silent = client, False
                    try:
                        self._serve_client(client)
                    except LinkBroken:
                        return
                    except OSError:
                        pass  # the client is gone; the next one is served
                    finally:
                        self._client = None

    def _serve_client(self, client: socket.socket) -> None:
        if isinstance(self._greeting, bytes):
            client.sendall(self._greeting)
        elif self._greeting is not None:
            self.send(dict(self._greeting))
        received = b""
        while True:
            data, fds = _receive(client)
            if not data:
                return
            if fds:
                self._fds += fds
                self._unclaimed = tuple(fds)
            received = (received + data).lstrip()
            while received:
                try:
                    request, end = json.JSONDecoder().raw_decode(received.decode())
                except ValueError:
                    break  # the rest of it has not come yet
                received = received[end:].lstrip()
                self._handle(request)

    def _handle(self, request: dict[str, t.Any]) -> None:
        name = request.get("execute") or request["exec-oob"]
        arguments, tag = request.get("arguments", {}), request.get("id")
        if name == "qmp_capabilities":
            self.enabled_capabilities = arguments.get("enable", [])
            self.send({"return": {}, "id": tag})
            return
        claimed, self._unclaimed = (
            (self._unclaimed, ()) if name in ("add-fd", "getfd") else ((), ())
        )
        command = Command(name, arguments, claimed)
        self.commands.append(command)
        expectation = self._take_expectation(command)
        if expectation is not None:
            for reaction in expectation.reactions:
                reaction(self, tag)
        elif self._responder is not None:
            self._respond(self._responder, command, tag)
        else:
            self._complaints.append(f"unexpected command {name} {arguments}")
            error = {"class": "CommandNotFound", "desc": f"The script does not expect {name}"}
            self.send({"error": error, "id": tag})

    def _take_expectation(self, command: Command) -> Expectation | None:
        candidates = self._expected if self._responder is not None else self._expected[:1]
        for expectation in candidates:
            if expectation.name == command.name and expectation.arguments in (
                None,
                command.arguments,
            ):
                self._expected.remove(expectation)
                return expectation
        return None

    def _respond(self, responder: Responder, command: Command, tag: object) -> None:
        try:
            value = responder.respond(command, self.emit)
        except QmpFailure as exc:
            error = {"class": exc.error_class, "desc": exc.description}
            self.send({"error": error, "id": tag})
        except LinkBroken as exc:
            if exc.answer is not None:
                self.send({"return": exc.answer, "id": tag})
            raise
        else:
            self.send({"return": value, "id": tag})


def _receive(client: socket.socket) -> tuple[bytes, list[ReceivedFd]]:
    item_bytes = array.array("i").itemsize
    data, ancillary, _flags, _address = client.recvmsg(
        65536, socket.CMSG_SPACE(_MOST_FDS * item_bytes)
    )
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % item_bytes])
    return data, [ReceivedFd.of(fd) for fd in fds]
