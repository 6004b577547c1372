# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Letting the guest go once its image is ready (DESIGN.md, Save 8)."""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing as t

from .._errors import MonitorError, VmfleetError
from .._failure import facts_of, words_of
from .._image_record import QUIT_BY_SAVE, SPENT_BY, SPENT_FOR_INSPECTION
from .._qemu._exit import wait_for_exit
from .._qemu._monitor import Monitor, MonitorLost, NoListener
from .._qemu._process import is_alive
from .._qemu._systemd import begin_stop, finish_stop
from .._saveimage._life import annotate, mark_spent
from ._session import SaveSession
from ._undo import SaveFailed

_QUIT_SECONDS = 60.0
_RUN_SECONDS = 60.0
_HANG_UP_SECONDS = 2.0


async def leave(session: SaveSession) -> tuple[str, str]:
    """Do what guest_state asks for; returns the guest's state and the image's.

    Raises `SaveFailed`: the image is whole then, and the message says what holds the guest.
    """
    image_state = "ready"
    try:
        if session.plan.guest_state == "stopped":
            # A QEMU that ends takes its settings with it.
            with contextlib.suppress(MonitorError):
                await _again(session, session.reset_qemu)
            await _quit(session)
            return "stopped", image_state
        await _again(session, session.reset_qemu)
        state = "postmigrate"
        if session.plan.guest_state == "running":
            _spend(session)
            image_state = "spent"
            session.step = "continuing the guest"
            await _again(session, lambda: session.continue_guest(_RUN_SECONDS))
            state = "running"
        await _again(session, session.forget)
        return state, image_state
    except (VmfleetError, OSError) as exc:
        step, state = session.step, await _state_now(session)
        raise SaveFailed(
            f"The image {session.plan.path} is complete and verified, but {step} failed: "
            f"{words_of(exc)} {_advice(image_state, state)}",
            **facts_of(exc),
            step=step,
            guest={"name": session.plan.name, "uuid": session.plan.uuid, "state": state},
            image={"path": session.plan.path, "state": image_state},
            actions=list(session.actions),
            changed=True,
        ) from exc


async def _again(session: SaveSession, work: t.Callable[[], t.Awaitable[None]]) -> None:
    """Do it, once more over a new connection when the old one broke."""
    try:
        await work()
    except MonitorLost:
        await session.ensure_link()
        await work()


async def _state_now(session: SaveSession) -> str:
    process = session.guest.process
    if process is not None and not is_alive(process):
        return "stopped"
    try:
        await session.monitor.reconnect()
        return str((await session.monitor.execute("query-status", timeout_seconds=10))["status"])
    except MonitorError:
        return "unknown"


def _advice(image_state: str, state: str) -> str:
    if state == "stopped":
        return f"Its QEMU has ended, and the image is {image_state}."
    if image_state == "spent":
        return "The image is spent; look at the guest with query-status, and continue it with cont."
    return (
        f"The guest is in run state {state}. Do not continue it while the image is ready: end "
        "that QEMU and restore the image, or remove the image first and then continue the guest."
    )


async def _quit(session: SaveSession) -> None:
    session.step = "ending QEMU"
    # Noted first: a run that dies after quit cannot say so any more. Only a QEMU that is gone
    # makes the note count.
    annotate(session.image.fd, session.plan.path, {QUIT_BY_SAVE: True})
    unit = session.plan.unit
    if unit is not None:
        await begin_stop(unit)
    # QEMU may hang up before it answers; whether it ended is looked at below.
    try:
        await session.monitor.execute("quit")
    except MonitorLost:
        await _quit_again(session)
    if not await _has_ended(session):
        raise MonitorError(f"QEMU was still there {_QUIT_SECONDS:g} s after quit.")
    session.actions.append("quit QEMU")
    if unit is not None:
        session.step = f"stopping {unit}"
        await finish_stop(unit)
        session.actions.append(f"stopped {unit}")


async def _quit_again(session: SaveSession) -> None:
    """The connection may have broken before QEMU heard of it."""
    process = session.guest.process
    if process is None or not await wait_for_exit(process, _HANG_UP_SECONDS):
        with contextlib.suppress(MonitorError):
            await session.monitor.reconnect()
            await session.monitor.execute("quit")


async def _has_ended(session: SaveSession) -> bool:
    process = session.guest.process
    if process is not None:
        return await wait_for_exit(process, _QUIT_SECONDS)
    # A process in another pid namespace shows its end only by its socket.
    await session.monitor.close()
    end = time.monotonic() + _QUIT_SECONDS
    while time.monotonic() < end:
        try:
            await (await Monitor.connect(session.monitor.path, 1)).close()
        except NoListener:
            return True
        except MonitorError:
            pass  # still there, but busy ending
        await asyncio.sleep(0.1)
    return False


def _spend(session: SaveSession) -> None:
    session.step = "marking the image spent before the guest continues"
    mark_spent(session.image.fd, session.plan.path, {SPENT_BY: SPENT_FOR_INSPECTION})
    session.actions.append("marked the image spent")
