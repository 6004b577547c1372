# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Stopping and continuing vCPUs, and asking a guest to shut down, whichever way it is reached."""

from __future__ import annotations

import asyncio
import contextlib
import time

from .._errors import MonitorError, Refused, VmfleetError
from .._libvirt._connection import Connection
from .._qemu._monitor import Monitor, NoListener
from .._uninterrupted import uninterrupted
from ._guests import Source

_RUNNING = "running"
_PAUSED = "paused"
_POLL_SECONDS = 0.5


class StillThere(VmfleetError):
    """A guest that was asked to shut down did not."""


async def pause(source: Source) -> bool:
    """Stop the vCPUs; True when they ran until now. Raises `MonitorError`, `LibvirtError`."""
    if source.qmp_socket is not None:
        monitor = await Monitor.connect(source.qmp_socket)
        try:
            ran = bool((await monitor.execute("query-status"))["status"] == _RUNNING)
            if ran:
                await monitor.execute("stop")
            return ran
        finally:
            await uninterrupted(monitor.close())
    connection, uuid, state = await _domain(source)
    try:
        if state == _RUNNING:
            await connection.suspend(uuid)
        return state == _RUNNING
    finally:
        await uninterrupted(connection.close())


async def go_on(source: Source) -> bool:
    """Continue vCPUs that `pause` stopped; False where they are not merely paused. Raises as
    `pause`."""
    if source.qmp_socket is not None:
        monitor = await Monitor.connect(source.qmp_socket)
        try:
            held = bool((await monitor.execute("query-status"))["status"] == _PAUSED)
            if held:
                await monitor.execute("cont")
            return held
        finally:
            await uninterrupted(monitor.close())
    connection, uuid, state = await _domain(source)
    try:
        if state == _PAUSED:
            await connection.resume(uuid)
        return state == _PAUSED
    finally:
        await uninterrupted(connection.close())


async def run_state(source: Source, uuid: str | None) -> str | None:
    """The state of the guest that is to be there, as QEMU or libvirt says it; None where nobody is,
    or somebody else. Raises as `pause`."""
    if source.qmp_socket is None:
        connection = await Connection.open(source.uri or "")
        try:
            domain = await connection.find(uuid or source.domain or "")
            return domain.state if domain is not None and domain.active else None
        finally:
            await uninterrupted(connection.close())
    try:
        monitor = await Monitor.connect(source.qmp_socket)
    except NoListener:
        return None
    try:
        theirs = str((await monitor.execute("query-uuid"))["UUID"]).lower()
        if uuid is not None and theirs != uuid:
            return None
        return str((await monitor.execute("query-status"))["status"])
    finally:
        await uninterrupted(monitor.close())


async def shut_down(source: Source, timeout_seconds: float) -> None:
    """Press the guest's power button and wait until its QEMU has ended.

    Raises `StillThere` when the time is over: nobody pulls the plug, and the guest may yet follow.
    """
    end = time.monotonic() + timeout_seconds
    await _press(source)
    while await _is_there(source):
        if time.monotonic() > end:
            raise StillThere(
                f"It was asked to shut down and has not within {timeout_seconds:g} s; it is still "
                "there, and may yet do so."
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _press(source: Source) -> None:
    if source.qmp_socket is not None:
        monitor = await Monitor.connect(source.qmp_socket)
        try:
            await monitor.execute("system_powerdown")
        finally:
            await uninterrupted(monitor.close())
        return
    connection, uuid, _state = await _domain(source)
    try:
        await connection.shut_down(uuid)
    finally:
        await uninterrupted(connection.close())


async def _is_there(source: Source) -> bool:
    if source.qmp_socket is not None:
        try:
            monitor = await Monitor.connect(source.qmp_socket)
        except NoListener:
            return False
        except MonitorError:  # just ending
            return True
        with contextlib.suppress(MonitorError):
            await monitor.close()
        return True
    connection = await Connection.open(source.uri or "")
    try:
        domain = await connection.find(source.domain or "")
        return domain is not None and domain.active
    finally:
        await uninterrupted(connection.close())


async def _domain(source: Source) -> tuple[Connection, str, str]:
    connection = await Connection.open(source.uri or "")
    try:
        domain = await connection.find(source.domain or "")
    except BaseException:
        await uninterrupted(connection.close())
        raise
    if domain is None:
        await uninterrupted(connection.close())
        raise Refused(f"There is no domain {source.domain} at {source.uri}.")
    return connection, domain.uuid, domain.state
