# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a save: one guest becomes one image (DESIGN.md, Save)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import replace

from .._errors import MonitorError, Refused
from .._failure import facts_of, words_of
from .._image_record import SavedImage, describe_target
from .._qemu._bookmark import SAVE, Bookmark
from .._qemu._deadline import Deadline
from .._qemu._fdset import direct_io_refusal
from .._qemu._guest import Guest, observe
from .._qemu._guest_lock import guest_lock
from .._qemu._monitor import Monitor, NoListener
from .._qemu._systemd_guest import unit_to_stop
from .._saveimage._publish import PartialImage, check_target
from .._saveimage._squash import owner_warning
from .._store_speed import for_saving, known_speed
from .._telling import SAVING, about
from .._uninterrupted import uninterrupted
from ._absent import save_of_nobody
from ._cases import guest_after, next_case
from ._existing import held, spend
from ._hold import UNKNOWN
from ._leave import leave
from ._outcome import SaveOutcome, saved
from ._plan import SavePlan
from ._planning import domain_xml_of, make_plan
from ._record import build_beginning, build_record, state_before
from ._recover import Recovery
from ._request import SaveRequest
from ._resume import plan_of
from ._session import SaveSession
from ._steps import (
    begin_image,
    lend_image,
    note_disks,
    prepare_qemu,
    publish_image,
    verify_image,
    write_guest,
)
from ._target import is_same_guest
from ._undo import SaveFailed, undo


async def save(request: SaveRequest, *, check_mode: bool) -> SaveOutcome:
    """Save the guest on ``request.qmp_socket``, or find that it was saved before.

    What an earlier run that died left is finished or undone first. Raises `Refused` before
    anything was touched and `SaveFailed` afterwards; other `VmfleetError`s come from looking at
    the guest.
    """
    started = time.monotonic()
    existing = describe_target(request.path)
    try:
        monitor = await Monitor.connect(request.qmp_socket)
    except NoListener as exc:
        return save_of_nobody(request, existing, exc, check_mode=check_mode)
    try:
        guest = await observe(monitor)
        try:
            check_target(request.path)
            request = await _with_unit(request, guest)
            measured = await known_speed(
                request,
                for_saving,
                guest.qemu_version,
                guest.ram_bytes,
                may_measure=not check_mode,
            )
            request = replace(request, measured=measured)
            if check_mode:
                return await _foresee(request, monitor, guest, existing)
            name = guest.name or request.qmp_socket
            with guest_lock(guest.process, request.qmp_socket), about(SAVING, name, request.path):
                return await _save(request, monitor, started)
        except Refused as exc:
            exc.facts.setdefault("guest", {"state": guest.run_state})
            raise
    finally:
        await uninterrupted(monitor.close())


async def _with_unit(request: SaveRequest, guest: Guest) -> SaveRequest:
    """The request with the unit to stop; raises `Refused` where systemd would start the guest
    again."""
    ends = request.guest_state == "stopped" or request.systemd_unit is not None
    if not ends or guest.process is None:
        return request
    return replace(request, unit=await unit_to_stop(guest.process.pid, request.systemd_unit))


async def _foresee(
    request: SaveRequest, monitor: Monitor, guest: Guest, existing: SavedImage | None
) -> SaveOutcome:
    """What check mode returns: nothing is touched, and no file written."""
    case = await next_case(request, monitor, guest)
    if case is None:
        return _planned(make_plan(request, guest, existing, direct_io_proved=None), guest)
    with contextlib.closing(case):
        if case.ends_the_run:
            plan = plan_of(case.leftover, guest, request, existing)
        else:
            after = guest_after(case, guest)
            plan = make_plan(request, after, existing, direct_io_proved=None)
        return _planned(replace(plan, recovers=case.facts()), guest)


def _planned(plan: SavePlan, guest: Guest) -> SaveOutcome:
    held = plan.guest_state == "paused" and guest.run_state == "postmigrate"
    return SaveOutcome(
        changed=plan.recovers is not None or not held,
        message=f"Would save {plan.name} to {plan.path}.",
        reason=plan.recovers["reason"] if plan.recovers else f"{plan.name} is {guest.run_state}",
        name=plan.name,
        uuid=plan.uuid,
        pid=guest.process.pid if guest.process else None,
        state_before=guest.run_state,
        state_after=plan.state_afterwards,
        image_before=plan.replaces,
        image_state=plan.image_state_afterwards,
        plan=plan,
        warnings=plan.warnings,
    )


async def _save(request: SaveRequest, monitor: Monitor, started: float) -> SaveOutcome:
    deadline = Deadline(request.timeout_seconds)
    # Again, now that no other run can change it.
    guest, existing = await observe(monitor), describe_target(request.path)
    recovery = Recovery(request, monitor, deadline, started)
    try:
        done = await recovery.run(guest, existing)
        if done is not None:
            return done
        found = guest
        if recovery.applied:
            guest = await observe(monitor)
        outcome = await _save_anew(request, monitor, guest, recovery, deadline, started)
    except (Refused, asyncio.CancelledError) as exc:
        if not recovery.applied:
            raise
        raise await uninterrupted(_ended_after(recovery, monitor, exc)) from exc
    return replace(outcome, state_before=found.run_state, image_before=existing)


async def _ended_after(recovery: Recovery, monitor: Monitor, cause: BaseException) -> SaveFailed:
    """A run that recovered and was refused, or interrupted, has changed something after all."""
    state = UNKNOWN
    with contextlib.suppress(MonitorError):
        state = str((await monitor.execute("query-status"))["status"])
    return SaveFailed(
        f"{words_of(cause)} What a run that died had left was treated before ("
        f"{'; '.join(recovery.actions)}); the guest is in run state {state}.",
        **facts_of(cause),
        guest={"state": state},
        actions=list(recovery.actions),
        changed=True,
    )


async def _save_anew(
    request: SaveRequest,
    monitor: Monitor,
    guest: Guest,
    recovery: Recovery,
    deadline: Deadline,
    started: float,
) -> SaveOutcome:
    existing = describe_target(request.path)
    with held(existing) as fd:
        plan = make_plan(request, guest, existing, direct_io_proved=None)
        plan = replace(plan, recovers=recovery.recovers)
        session = _session(request, monitor, guest, plan, deadline)
        session.actions = recovery.actions
        with contextlib.closing(session.image):
            return await _run(session, request, existing, fd, started)


def _spend_stale(session: SaveSession, existing: SavedImage | None, fd: int | None) -> None:
    if fd is None or existing is None:
        return
    if is_same_guest(existing, session.guest, session.plan.uuid):
        session.step = "marking the older image of the guest spent"
        session.actions += spend(existing, fd)


def _session(
    request: SaveRequest, monitor: Monitor, guest: Guest, plan: SavePlan, deadline: Deadline
) -> SaveSession:
    domain_xml = domain_xml_of(request, guest, plan)
    image = PartialImage.create(plan.path)
    status = os.fstat(image.fd)
    inode = status.st_ino
    session = SaveSession(
        monitor,
        guest,
        plan,
        image,
        build_beginning(
            plan,
            domain_xml,
            build_record(guest, plan, inode),
            disk_files=len(guest.block_nodes),
        ),
        Bookmark(SAVE, os.path.abspath(image.path), inode, state_before(guest)),
        deadline,
    )
    session.warnings += owner_warning(plan.path, status.st_uid, os.geteuid())
    return session


def _prove_direct_io(
    session: SaveSession, request: SaveRequest, existing: SavedImage | None
) -> None:
    session.step = "trying O_DIRECT on the image"
    refusal = direct_io_refusal(session.image.fd, session.data_offset_bytes, write=True)
    plan = make_plan(request, session.guest, existing, direct_io_proved=refusal is None)
    session.plan = replace(plan, recovers=session.plan.recovers)


async def _run(
    session: SaveSession,
    request: SaveRequest,
    existing: SavedImage | None,
    existing_fd: int | None,
    started: float,
) -> SaveOutcome:
    try:
        if describe_target(session.image.target) != existing:
            # Whoever publishes here holds the lock of the partial file, which is ours now.
            raise Refused(f"{session.image.target} changed while the save was being planned.")
        begin_image(session)
        lend_image(session)
        _spend_stale(session, existing, existing_fd)
        if session.plan.negotiated.bypass_cache:
            _prove_direct_io(session, request, existing)
        await prepare_qemu(session)
        migration = await write_guest(session)
        await note_disks(session)
        structure, verified = await verify_image(session, migration)
        publish_image(session)
    except BaseException as exc:
        await uninterrupted(undo(session, exc))
    state, image_state = await uninterrupted(leave(session))
    return saved(
        session,
        existing,
        started=started,
        state_before=session.plan.run_state_before,
        state=state,
        image_state=image_state,
        structure=structure,
        verified=verified,
        migration=migration,
    )
