# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a save: one guest becomes one image (DESIGN.md, Save)."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import replace

from .._errors import Refused
from .._image_record import SavedImage, describe, describe_target
from .._qemu._bookmark import SAVE, Bookmark
from .._qemu._deadline import Deadline
from .._qemu._fdset import direct_io_refusal
from .._qemu._guest import Guest, observe
from .._qemu._guest_lock import guest_lock
from .._qemu._monitor import Monitor, NoListener
from .._saveimage._lock import lock_image
from .._saveimage._publish import PartialImage, check_target
from .._uninterrupted import uninterrupted
from ._absent import save_of_nobody
from ._leave import leave
from ._outcome import SaveOutcome, saved
from ._plan import SavePlan
from ._planning import domain_xml_of, make_plan
from ._record import build_beginning, build_record, state_before
from ._recover import Recovery, guest_after, next_case
from ._request import SaveRequest
from ._resume import plan_of
from ._session import SaveSession
from ._steps import begin_image, prepare_qemu, publish_image, verify_image, write_guest
from ._undo import undo


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
            if check_mode:
                return await _foresee(request, monitor, guest, existing)
            with guest_lock(guest.process, request.qmp_socket):
                return await _save(request, monitor, guest, existing, started)
        except Refused as exc:
            exc.facts.setdefault("guest", {"state": guest.run_state})
            raise
    finally:
        await monitor.close()


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
    return SaveOutcome(
        changed=True,
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


async def _save(
    request: SaveRequest,
    monitor: Monitor,
    guest: Guest,
    existing: SavedImage | None,
    started: float,
) -> SaveOutcome:
    recovery = Recovery(request, monitor, Deadline(request.timeout_seconds), started)
    done = await recovery.run(guest, existing)
    if done is not None:
        return done
    there = describe_target(request.path) if recovery.recovers else existing
    state_found = guest.run_state
    with _held(there):
        guest = await observe(monitor)
        plan = make_plan(request, guest, there, direct_io_proved=None)
        session = _session(request, monitor, guest, replace(plan, recovers=recovery.recovers))
        session.actions = recovery.actions
        with contextlib.closing(session.image):
            outcome = await _run(session, request, there, started)
    return replace(outcome, state_before=state_found, image_before=existing)


@contextlib.contextmanager
def _held(existing: SavedImage | None) -> t.Iterator[None]:
    """Keep a restore from using the image that is about to be replaced."""
    if existing is None:
        yield
        return
    fd = lock_image(existing.path, write=False)
    try:
        if describe(fd, existing.path) != existing:
            raise Refused(f"{existing.path} changed while the save was being planned; run again.")
        yield
    finally:
        os.close(fd)


def _session(request: SaveRequest, monitor: Monitor, guest: Guest, plan: SavePlan) -> SaveSession:
    domain_xml = domain_xml_of(request, guest, plan)
    image = PartialImage.create(plan.path)
    inode = os.fstat(image.fd).st_ino
    return SaveSession(
        monitor,
        guest,
        plan,
        image,
        build_beginning(plan, domain_xml, build_record(guest, plan, inode)),
        Bookmark(SAVE, os.path.abspath(image.path), inode, state_before(guest)),
        Deadline(request.timeout_seconds),
    )


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
    started: float,
) -> SaveOutcome:
    try:
        if describe_target(session.image.target) != existing:
            # Whoever publishes here holds the lock of the partial file, which is ours now.
            raise Refused(f"{session.image.target} changed while the save was being planned.")
        begin_image(session)
        if session.plan.negotiated.bypass_cache:
            _prove_direct_io(session, request, existing)
        await prepare_qemu(session)
        migration = await write_guest(session)
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
