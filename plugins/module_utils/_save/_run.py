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

from .._errors import Refused, StoreError
from .._image_record import SavedImage, describe, describe_target
from .._libvirt._qemu_conf import QemuConf, read_knobs
from .._qemu._deadline import Deadline
from .._qemu._fdset import direct_io_refusal
from .._qemu._guest import Guest, observe
from .._qemu._guest_lock import guest_lock
from .._qemu._monitor import Monitor, NoListener
from .._saveimage._compressors import compressor_of, find_program
from .._saveimage._domain_xml import identity, minimal_domain_xml
from .._saveimage._prefix import plan_prefix
from .._saveimage._publish import PartialImage, check_target, lock_image
from .._saveimage._record import RECORD_TAG, pack_block
from .._uninterrupted import uninterrupted
from ._leave import leave
from ._outcome import SaveOutcome
from ._plan import SavePlan, choose_kind, plan_save
from ._record import build_record
from ._request import SaveRequest
from ._session import SaveSession
from ._steps import begin_image, prepare_qemu, publish_image, verify_image, write_guest
from ._target import already_saved
from ._undo import undo

_RECORD_SPARE_BYTES = 16 << 10
_BLOCK_BYTES = 4096


async def save(request: SaveRequest, *, check_mode: bool) -> SaveOutcome:
    """Save the guest on ``request.qmp_socket``, or find that it was saved before.

    Raises `Refused` before anything was touched and `SaveFailed` afterwards; other
    `VmfleetError`s come from looking at the guest.
    """
    started = time.monotonic()
    existing = describe_target(request.path)
    try:
        monitor = await Monitor.connect(request.qmp_socket)
    except NoListener as exc:
        return _without_listener(request, existing, exc)
    try:
        guest = await observe(monitor)
        try:
            check_target(request.path)
            plan = _plan(request, guest, existing, direct_io_proved=None)
            if check_mode:
                return _planned(plan, guest)
            with guest_lock(guest.process, request.qmp_socket), _held(existing):
                guest = await observe(monitor)
                plan = _plan(request, guest, existing, direct_io_proved=None)
                session = _session(request, monitor, guest, plan)
                with contextlib.closing(session.image):
                    return await _run(session, request, existing, started)
        except Refused as exc:
            exc.facts.setdefault("guest", {"state": guest.run_state})
            raise
    finally:
        await monitor.close()


def _without_listener(
    request: SaveRequest, existing: SavedImage | None, cause: NoListener
) -> SaveOutcome:
    done, reason = already_saved(request.path, request.qmp_socket, request.uuid, existing)
    if not done or existing is None:
        raise Refused(
            f"{cause.message} There is no guest to save, and it was not saved before: {reason}.",
            guest={"state": "absent"},
        )
    return SaveOutcome(
        changed=False,
        message=f"{existing.name} was saved to {existing.path} before.",
        reason=reason,
        name=existing.name,
        uuid=existing.uuid,
        pid=None,
        state_before="stopped",
        state_after="stopped",
        image_before=existing,
        image_state=existing.state,
    )


def _read_conf(request: SaveRequest) -> QemuConf:
    silent = QemuConf(request.qemu_conf, None, None)
    if request.image_format is not None:
        return silent
    try:
        return read_knobs(request.qemu_conf)
    except StoreError:
        # Unreadable is no obstacle to a version that was asked for by name.
        if request.image_version is None:
            raise
        return silent


def _read_domain_xml(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as source:
            xml = source.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"domain_xml_file {path} cannot be read: {exc}.") from exc
    if identity(xml) is None:
        raise Refused(f"domain_xml_file {path} is not a libvirt domain description with a name.")
    return xml


def _plan(
    request: SaveRequest,
    guest: Guest,
    existing: SavedImage | None,
    *,
    direct_io_proved: bool | None,
) -> SavePlan:
    xml = _read_domain_xml(request.domain_xml_file)
    compressor = compressor_of(choose_kind(request, _read_conf(request)).image_format)
    if compressor is not None:
        find_program(compressor)
    directory = os.path.dirname(request.path)
    try:
        store = os.statvfs(directory)
    except OSError as exc:
        raise Refused(f"The directory {directory} cannot be used: {exc.strerror}.") from exc
    return plan_save(
        request,
        guest,
        _read_conf(request),
        existing,
        identity(xml) if xml is not None else None,
        cpu_count=len(os.sched_getaffinity(0)),
        free_bytes=store.f_bavail * store.f_frsize,
        direct_io_proved=direct_io_proved,
    )


def _planned(plan: SavePlan, guest: Guest) -> SaveOutcome:
    return SaveOutcome(
        changed=True,
        message=f"Would save {plan.name} to {plan.path}.",
        reason=f"{plan.name} is {guest.run_state}",
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
    """Everything that can be made without the file first, then the file."""
    domain_xml = _read_domain_xml(request.domain_xml_file) or minimal_domain_xml(
        name=plan.name,
        uuid=plan.uuid,
        memory_bytes=guest.memory_bytes,
        vcpus=guest.vcpus,
        arch=guest.architecture,
        machine=guest.machine_type,
        accelerator=guest.accelerator,
    )
    record = build_record(guest, name=plan.name, uuid=plan.uuid, guest_state=plan.guest_state)
    room = len(pack_block(RECORD_TAG, record)) + _RECORD_SPARE_BYTES
    capacity = -(-room // _BLOCK_BYTES) * _BLOCK_BYTES
    layout = plan_prefix(domain_xml, None, capacity)
    return SaveSession(
        monitor=monitor,
        guest=guest,
        plan=plan,
        domain_xml=domain_xml,
        image=PartialImage.create(plan.path),
        deadline=Deadline(request.timeout_seconds),
        layout=layout,
        record=record,
    )


def _prove_direct_io(
    session: SaveSession, request: SaveRequest, existing: SavedImage | None
) -> None:
    session.step = "trying O_DIRECT on the image"
    refusal = direct_io_refusal(session.image.fd, session.layout.data_offset_bytes, write=True)
    session.plan = _plan(request, session.guest, existing, direct_io_proved=refusal is None)


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
        structure, verified = await verify_image(session)
        publish_image(session)
    except BaseException as exc:
        await uninterrupted(undo(session, exc))
    state, image_state = await uninterrupted(leave(session))
    stopped_at = session.stopped_at if session.stopped_at is not None else started
    plan, now = session.plan, time.monotonic()
    return SaveOutcome(
        changed=True,
        message=f"Saved {plan.name} to {plan.path}.",
        reason=f"{plan.name} was {plan.run_state_before}",
        name=plan.name,
        uuid=plan.uuid,
        pid=session.guest.process.pid if session.guest.process and state != "stopped" else None,
        state_before=plan.run_state_before,
        state_after=state,
        image_before=existing,
        image_state=image_state,
        plan=plan,
        structure=structure,
        verified=verified,
        migration=migration,
        stopped_seconds=round(now - stopped_at, 3),
        duration_seconds=round(now - started, 3),
        actions=tuple(session.actions),
        warnings=plan.warnings,
    )
