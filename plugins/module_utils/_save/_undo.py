# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Undoing a save that failed: the guest as it was, nothing half-written left behind."""

from __future__ import annotations

import asyncio
import time
import typing as t

from .._errors import MonitorError, VmfleetError
from .._failure import facts_of, words_of
from .._image_record import SPENT_BY
from .._qemu._migration import Migration, wait_for_run_state
from .._qemu._process import is_alive
from .._saveimage._life import mark_spent
from ._session import STOP_SECONDS, SaveSession

_SETTLE_SECONDS = 10.0
CRASHED = "crashed"
UNKNOWN = "unknown"


class SaveFailed(VmfleetError):
    """A save that had begun failed; the message says what became of guest and image."""


async def undo(session: SaveSession, cause: BaseException) -> t.NoReturn:
    """Put everything back and raise `SaveFailed`; a defect of our own is raised as it is."""
    step = session.step
    withdrawn = _demote_image(session)
    removed = _remove_image(session)
    state = await _release_guest(session, may_continue=withdrawn)
    if session.pipeline is not None:
        await session.pipeline.abort()
    if not isinstance(cause, (VmfleetError, OSError, asyncio.CancelledError)):
        raise cause
    plan = session.plan
    raise SaveFailed(
        f"Saving {plan.name} failed while {step}: {words_of(cause)} "
        + advice(state, plan.run_state_before, plan.path, session.monitor.path, withdrawn)
        + (_remains(session.image.path, removed) if withdrawn else ""),
        **facts_of(cause),
        step=step,
        guest={"name": plan.name, "uuid": plan.uuid, "state": state},
        actions=list(session.actions),
    ) from cause


def _demote_image(session: SaveSession) -> bool:
    """Make sure that no image of this guest can be restored; False when that failed."""
    if not session.publishing:
        return True  # the partial magic is on disk since the beginning
    try:
        mark_spent(session.image.fd, session.image.path, {SPENT_BY: "failed publish"})
    except (VmfleetError, OSError):
        return False
    return True


def _remove_image(session: SaveSession) -> bool:
    """Remove the unfinished file; False when it stays."""
    try:
        session.image.discard()
    except (VmfleetError, OSError):
        return False
    session.actions.append("removed the unfinished image")
    return True


async def _release_guest(session: SaveSession, *, may_continue: bool) -> str:
    """Cancel, reset and continue; returns the state the guest is in now."""
    process = session.guest.process
    stopped = session.stopped_at is not None
    try:
        if process is not None and not is_alive(process):
            return CRASHED
        await _ensure_link(session)
        if session.migrating:
            cancel = Migration(session.monitor, process).cancel()
            await _try(session, "cancel the migration", cancel)
        await _try(session, "put QEMU's migration settings back", session.reset_qemu())
        if stopped and session.plan.was_running and may_continue:
            await _try(session, "continue the guest", _continue(session))
        return str((await session.monitor.execute("query-status"))["status"])
    except VmfleetError:
        return UNKNOWN if process is None or is_alive(process) else CRASHED


async def _try(session: SaveSession, what: str, work: t.Awaitable[None]) -> None:
    """A step of the way back whose failure must not keep the guest from going on."""
    try:
        await work
    except VmfleetError as exc:
        session.actions.append(f"could not {what}: {exc.message}")


async def _continue(session: SaveSession) -> None:
    await session.monitor.execute("cont", timeout_seconds=STOP_SECONDS)
    await wait_for_run_state(session.monitor, ("running",), _SETTLE_SECONDS)
    session.actions.append("continued the guest")


async def _ensure_link(session: SaveSession) -> None:
    """A QEMU that stalls, on its disks perhaps, is waited for: only its monitor can continue the
    guest."""
    process, end = session.guest.process, time.monotonic() + STOP_SECONDS
    while True:
        try:
            await session.monitor.execute("query-status", timeout_seconds=_SETTLE_SECONDS)
            return
        except MonitorError:
            if process is not None and not is_alive(process):
                raise
        try:
            await session.monitor.reconnect()
        except MonitorError:
            if time.monotonic() >= end or (process is not None and not is_alive(process)):
                raise
            await asyncio.sleep(1)


def _remains(path: str, removed: bool) -> str:
    if removed:
        return " No image was left behind."
    return f" The unfinished image {path} could not be removed; nobody can restore it."


def advice(state: str, before: str, image_path: str, qmp_socket: str, withdrawn: bool) -> str:
    """What state the guest is in now and what the operator does next."""
    if state == CRASHED:
        return "QEMU itself has ended and the guest's RAM is lost: the guest must be started anew."
    if not withdrawn:
        return (
            f"The image {image_path} could not be withdrawn, so the guest was left in {state}. "
            "Remove the image first, then continue the guest with cont."
        )
    if state == before:
        return f"The guest is {state} as before."
    if state == UNKNOWN:
        return (
            f"The monitor {qmp_socket} does not answer, so the guest's state is unknown. Look "
            "with query-status; from paused or postmigrate, cont continues it."
        )
    return f"The guest is now in run state {state} (before: {before}); cont continues it."
