# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The agent in a guest (qemu-ga), by its chardev's UNIX socket: JSON lines, one client at a time.

An agent answers late or not at all, and what it answers to somebody before us comes first: each
conversation begins with guest-sync-delimited, whose answer follows a byte 0xFF (qga/qapi-schema).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import typing as t

from .._errors import MonitorError, QmpCommandError, VmfleetError
from .._uninterrupted import within
from ._monitor import Monitor

PORT = "org.qemu.guest_agent.0"
_PLACES = ("/machine/peripheral", "/machine/peripheral-anon")
_PORT_TYPE = "child<virtserialport>"
_DELIMITER = b"\xff"
_MOST_BYTES = 1 << 20
_DISCONNECTED = "disconnected:"
# A guest may answer anything at all: nothing, too much, no JSON, or JSON without an end.
_NO_ANSWER = (
    *(OSError, EOFError, ValueError, RecursionError),
    *(asyncio.LimitOverrunError, asyncio.TimeoutError),
)
_LATEST_NS = 1 << 63


class AgentError(VmfleetError):
    """The agent does not answer, refuses, or is somebody else's. ``state``: silent or held."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


async def agent_socket(monitor: Monitor) -> str | None:
    """Where the agent's chardev listens; None for a guest without one that does.

    Raises `AgentError` where another client has it, `MonitorError`.
    """
    chardev = await _chardev(monitor)
    for one in await monitor.execute("query-chardev"):
        if one["label"] != chardev:
            continue
        name = str(one["filename"])
        free = name.startswith(_DISCONNECTED)
        kind, _colon, rest = name[len(_DISCONNECTED) if free else 0 :].partition(":")
        if kind != "unix" or ",server=on" not in rest:
            return None
        if not free:
            raise AgentError(f"another client has the agent's socket {chardev}", "held")
        return rest.partition(",server=on")[0]
    return None


async def _chardev(monitor: Monitor) -> str | None:
    """The label of the chardev behind the agent's port."""
    for place in _PLACES:
        for child in await monitor.execute("qom-list", {"path": place}):
            if child["type"] != _PORT_TYPE:
                continue
            path = f"{place}/{child['name']}"
            with contextlib.suppress(QmpCommandError):
                if await monitor.execute("qom-get", {"path": path, "property": "name"}) == PORT:
                    found = await monitor.execute("qom-get", {"path": path, "property": "chardev"})
                    return str(found)
    return None


class Agent:
    """A conversation. Each command waits for ``seconds`` at most, unless it is given more."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self._in_step = False

    @classmethod
    async def open(cls, path: str, seconds: float) -> Agent:
        """Connect and find the agent awake. Raises `AgentError`."""
        try:
            reader, writer = await within(
                seconds, asyncio.open_unix_connection(path, limit=_MOST_BYTES)
            )
        except (OSError, asyncio.TimeoutError) as exc:
            raise AgentError(f"the agent's socket cannot be reached: {exc}", "silent") from exc
        agent = cls(reader, writer, seconds)
        try:
            await agent._synchronize()
        except AgentError:
            agent.close()
            raise
        return agent

    def close(self) -> None:
        """End the conversation."""
        self._writer.close()

    async def time_ns(self) -> int:
        """The guest's clock, nanoseconds since the epoch. Raises `AgentError`."""
        found = await self._execute("guest-get-time", self._seconds)
        if not isinstance(found, int) or not 0 <= found < _LATEST_NS:
            raise AgentError("what the agent told is no time", "refused")
        return found

    async def set_time_ns(self, now: int, seconds: float) -> None:
        """Set the guest's clock; waits for ``seconds`` at most. Raises `AgentError`."""
        await self._execute("guest-set-time", seconds, time=now)

    async def _execute(self, command: str, seconds: float, **arguments: object) -> t.Any:
        """What the agent returns. Raises `AgentError` with its words."""
        if not self._in_step:
            await self._synchronize()
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            answer = await within(seconds, self._ask(request))
        except _NO_ANSWER as exc:
            # It may still come, and is none to the next command.
            self._in_step = False
            raise AgentError(
                f"the agent did not answer {command} within {seconds:g} s", "silent"
            ) from exc
        if "error" in answer:
            raise AgentError(f"the agent refused {command}: {_words(answer['error'])}", "refused")
        return answer.get("return")

    async def _ask(self, request: object) -> dict[str, t.Any]:
        self._writer.write(json.dumps(request).encode() + b"\n")
        await self._writer.drain()
        return self._read(await self._reader.readuntil(b"\n"))

    async def _synchronize(self) -> None:
        try:
            await within(self._seconds, self._find_its_answer())
        except _NO_ANSWER as exc:
            raise AgentError(f"no agent answered within {self._seconds:g} s", "silent") from exc
        self._in_step = True

    async def _find_its_answer(self) -> None:
        number = secrets.randbelow(1 << 31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        # The byte first ends what somebody may have left half said.
        self._writer.write(_DELIMITER + json.dumps(request).encode() + b"\n")
        await self._writer.drain()
        while True:
            await self._reader.readuntil(_DELIMITER)
            with contextlib.suppress(ValueError):
                if self._read(await self._reader.readuntil(b"\n")).get("return") == number:
                    return

    @staticmethod
    def _read(line: bytes) -> dict[str, t.Any]:
        answer = json.loads(line.rpartition(_DELIMITER)[2])
        if not isinstance(answer, dict):
            raise ValueError("an answer that is no object")
        return answer


def _words(error: object) -> str:
    """Why an agent refused, in words that a terminal may be shown."""
    told = str(error.get("desc", "no reason given") if isinstance(error, dict) else error)[:200]
    return "".join(one if one.isprintable() else " " for one in told)


async def announce(monitor: Monitor) -> bool:
    """Have the guest's network cards tell the network where they are; False where this QEMU cannot.

    QEMU does so by itself when a load ends, while the vCPUs are held and cannot (virtio-net's
    GUEST_ANNOUNCE). The figures are QEMU's defaults of a migration.
    """
    rounds = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
    try:
        await monitor.execute("announce-self", rounds)
    except (MonitorError, QmpCommandError):
        return False
    return True
