# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Once a restored guest runs: its place in the network, its clock, and whether it is ready.

None of it is a condition of the restore. What fails is told, and the guest runs.
"""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import dataclass

from .._clock import ABSENT, ClockReport, synchronize
from .._errors import LibvirtError, MonitorError, Refused, VmfleetError
from .._libvirt._connection import Connection
from .._qemu._agent import Agent, AgentError, agent_socket, announce
from .._qemu._monitor import Monitor
from .._telling import tell_step
from .._uninterrupted import finished_first, uninterrupted, within

_AGENT_SECONDS = 5.0
# hwclock, which the agent waits for, itself waits 10 s for a clock that does not tick.
_SET_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 0.5
# libvirt's virterror.h: no agent is configured; it does not answer.
_NO_AGENT, _UNRESPONSIVE = 74, 86


@dataclass(frozen=True)
class Wanted:
    """What is to be done and looked at. ``tcp``: host and port that shall accept a connection;
    ``agent``: the agent shall answer; ``ready_seconds``: how long that is waited for."""

    sync_clock: bool = True
    tcp: tuple[str, int] | None = None
    agent: bool = False
    ready_seconds: float = 60.0

    @property
    def checks(self) -> bool:
        """Whether it is waited for at all."""
        return self.tcp is not None or self.agent


def parse_tcp(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[ADDRESS]:PORT``. Raises `Refused`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise Refused(f"ready_check.tcp must be HOST:PORT, not {text!r}.")
    if not 0 < int(port) < 1 << 16:
        raise Refused(f"ready_check.tcp names port {port}; ports are 1 to 65535.")
    try:
        host.encode("idna")  # as it is looked up
    except UnicodeError as exc:
        raise Refused(f"ready_check.tcp names a host that can be none: {host!r}.") from exc
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port)


@dataclass(frozen=True)
class Presence:
    """``announced``: QEMU had its network cards tell where they are, None where that is libvirt's;
    ``ready``: None where nothing was to be waited for."""

    announced: bool | None
    clock: ClockReport | None
    ready: bool | None = None
    ready_after_seconds: float | None = None
    not_ready_reason: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """Keys of the module's result."""
        result: dict[str, t.Any] = {
            "announced": self.announced,
            "clock": self.clock.as_dict() if self.clock is not None else None,
        }
        if self.ready is not None:
            result["ready"] = {
                "ready": self.ready,
                "seconds": self.ready_after_seconds,
                "reason": self.not_ready_reason,
            }
        return result

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know."""
        clock = self.clock.warning if self.clock is not None else None
        late = f"The guest runs and is not ready: {self.not_ready_reason}."
        return (*((clock,) if clock else ()), *((late,) if self.ready is False else ()))


async def presence_over_qmp(qmp_socket: str, wanted: Wanted) -> Presence:
    """All of it for a guest behind a monitor. Raises nothing but asyncio.CancelledError."""
    try:
        monitor = await Monitor.connect(qmp_socket)
    except VmfleetError as exc:
        return await _finished(None, ClockReport("silent", error=exc.message), wanted, None)
    try:
        announced = await announce(monitor)
        try:
            path = await agent_socket(monitor)
        except (AgentError, MonitorError) as exc:
            state = exc.state if isinstance(exc, AgentError) else "silent"
            clock = ClockReport(state, error=exc.message)
            return await _finished(announced, clock, wanted, None)
    finally:
        await finished_first(monitor.close())
    if path is None:
        return await _finished(announced, ClockReport(ABSENT), wanted, None)
    socket = path

    async def ping() -> None:
        (await Agent.open(socket, _AGENT_SECONDS)).close()

    told = await _clock_by_agent(socket) if wanted.sync_clock else None
    return await _finished(announced, told, wanted, ping)


async def presence_of_domain(uri: str, domain: str, wanted: Wanted) -> Presence:
    """All of it for a domain: libvirt alone talks to its agent, and QEMU itself announced the guest
    when it was loaded. Raises nothing but asyncio.CancelledError."""
    try:
        connection = await Connection.open(uri)
    except VmfleetError as exc:
        return await _finished(None, ClockReport("silent", error=exc.message), wanted, None)
    try:
        found = await connection.find(domain)
        uuid = found.uuid if found is not None else domain

        async def ping() -> None:
            await connection.agent_time_ns(uuid)

        clock = await _clock_by_libvirt(connection, uuid) if wanted.sync_clock else None
        return await _finished(None, clock, wanted, ping)
    except LibvirtError as exc:
        return await _finished(None, ClockReport("silent", error=exc.message), wanted, None)
    finally:
        await uninterrupted(connection.close())


class _OverQmp:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def read_ns(self) -> int:
        return await self._agent.time_ns()

    async def set_ns(self, now: int) -> None:
        await self._agent.set_time_ns(now, _SET_SECONDS)


class _OverLibvirt:
    def __init__(self, connection: Connection, uuid: str) -> None:
        self._connection = connection
        self._uuid = uuid

    async def read_ns(self) -> int:
        return await self._connection.agent_time_ns(self._uuid)

    async def set_ns(self, now: int) -> None:
        await self._connection.set_agent_time_ns(self._uuid, now)


async def _clock_by_agent(socket: str) -> ClockReport:
    try:
        agent = await Agent.open(socket, _AGENT_SECONDS)
        try:
            return await synchronize(_OverQmp(agent))
        finally:
            agent.close()
    except AgentError as exc:
        return ClockReport(exc.state, error=exc.message)


async def _clock_by_libvirt(connection: Connection, uuid: str) -> ClockReport:
    try:
        return await synchronize(_OverLibvirt(connection, uuid))
    except LibvirtError as exc:
        if exc.code == _NO_AGENT:
            return ClockReport(ABSENT)
        state = "silent" if exc.code == _UNRESPONSIVE else "refused"
        return ClockReport(state, error=exc.message)


async def _finished(
    announced: bool | None,
    clock: ClockReport | None,
    wanted: Wanted,
    ping: t.Callable[[], t.Coroutine[t.Any, t.Any, None]] | None,
) -> Presence:
    """With the readiness, where that is asked for."""
    told = clock if wanted.sync_clock else None
    if not wanted.checks:
        return Presence(announced, told)
    began = time.monotonic()
    missing = ["the agent"] if wanted.agent else []
    if wanted.tcp is not None:
        missing.append(f"port {wanted.tcp[1]} of {wanted.tcp[0]}")
    reason = ""
    tell_step(f"waiting for {' and '.join(missing)}")
    while True:
        left = wanted.ready_seconds - (time.monotonic() - began)
        for one in tuple(missing):
            try:
                await _answers(one, wanted, ping, max(left, 0.1))
                missing.remove(one)
            except (VmfleetError, OSError, asyncio.TimeoutError) as exc:
                reason = f"{one} does not answer ({exc or 'timed out'})"
        seconds = round(time.monotonic() - began, 3)
        if not missing:
            return Presence(announced, told, True, seconds)
        if left <= 0:
            return Presence(announced, told, False, seconds, reason)
        await asyncio.sleep(min(_LOOK_AGAIN_SECONDS, left))


async def _answers(
    what: str,
    wanted: Wanted,
    ping: t.Callable[[], t.Coroutine[t.Any, t.Any, None]] | None,
    seconds: float,
) -> None:
    if what == "the agent":
        if ping is None:
            raise AgentError("there is none to be reached", "absent")
        await within(seconds, ping())
        return
    if wanted.tcp is None:
        raise AssertionError("no port was asked for")
    _reader, writer = await within(seconds, asyncio.open_connection(*wanted.tcp))
    writer.close()
