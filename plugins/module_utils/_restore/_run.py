# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a restore: one image becomes one guest again (DESIGN.md, Restore)."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import replace

from .._errors import Refused
from .._image_record import SavedImage, describe, described_again, ram_sizes
from .._pipeline import decode_head
from .._qemu._deadline import Deadline
from .._qemu._fence import changed_disks
from .._qemu._guest import Guest, observe
from .._qemu._guest_lock import guest_lock
from .._qemu._launch import wait_for_other
from .._qemu._mapped_argv import ImageBlock
from .._qemu._monitor import Monitor, NoListener
from .._qemu._process import boot_id, find_with, is_alive, runs_with
from .._saveimage._compressors import compressor_of
from .._saveimage._publish import refuse_unfinished
from .._saveimage._verify import verify_structure
from .._store_speed import for_restoring, known_speed
from .._telling import RESTORING, about
from .._uninterrupted import in_thread, uninterrupted
from ._checks import check_trust, refuse_problems
from ._failing import fail
from ._image_file import open_image
from ._launching import Launch, choose_socket, launch_or_none
from ._lazy import blocks_mapped_by, keep_from_changing, load_around, prove, read_ahead
from ._load import (
    Destination,
    RestoreSession,
    load,
    note_running,
    remove_image,
    run_guest,
)
from ._outcome import RestoreOutcome
from ._plan import (
    WAITING,
    RestorePlan,
    check_image,
    decide_for_live_guest,
    live_plan,
    plan_without_qemu,
)
from ._recover import Recovery
from ._recovery import Remedy
from ._rehearse import rehearse
from ._report import Report
from ._request import LAZY, RestoreRequest
from ._spent import why_spent
from ._starter import Starter
from ._waiting import WaitingQemu


def story_of(saved: SavedImage) -> str:
    """How a spent image came to be so; empty for others."""
    if saved.state != "spent":
        return ""
    known = saved.disks_boot_id is not None
    changed = changed_disks(saved.disks, same_boot=saved.disks_boot_id == boot_id())
    return why_spent(
        saved,
        holder_lives=saved.loaded_into is not None and is_alive(saved.loaded_into),
        changed=changed if known else None,
    )


async def restore(request: RestoreRequest, *, check_mode: bool) -> RestoreOutcome:
    """Bring the guest of ``request.path`` back, or find that it was brought back before.

    Raises `Refused` before anything was loaded and `RestoreFailed` afterwards; `ImageInvalid` and
    `ImageLocked` come from reading the image.
    """
    refuse_unfinished(request.path)
    began = time.monotonic()
    fd = open_image(request.path, write=not request.rehearse, check_mode=check_mode)
    try:
        session = RestoreSession(
            image=_described(fd, request),
            fd=fd,
            structure=await in_thread(lambda: verify_structure(fd, request.path)),
            deadline=Deadline(request.timeout_seconds),
            rehearsal=request.rehearse,
        )
        name = session.image.name or request.path
        with about(RESTORING, name, request.path, silent=check_mode):
            return await _Restore(request, session, began, check_mode=check_mode).execute()
    finally:
        os.close(fd)


def _described(fd: int, request: RestoreRequest) -> SavedImage:
    image = describe(fd, request.path)
    if image.state == "partial":
        check_image(image, request)
    return image


class _Restore:
    def __init__(
        self,
        request: RestoreRequest,
        session: RestoreSession,
        began: float,
        *,
        check_mode: bool,
    ) -> None:
        self._check_mode = check_mode
        self._request = request
        self._session = session
        self._report = Report(session, request, began, check_mode=check_mode)
        self._wanted: Launch | None = None

    @property
    def _image(self) -> SavedImage:
        return self._session.image

    async def execute(self) -> RestoreOutcome:
        await self._look_inside()
        self._qmp_socket = choose_socket(self._image, self._request)
        self._report.qmp_socket = self._qmp_socket
        if self._request.qmp_socket is None:
            # Who wrote the image decides which QEMU is talked to.
            refuse_problems(self._request.path, [check_trust(self._request, self._session.fd)])
        self._request = replace(self._request, qmp_socket=self._qmp_socket)
        if self._request.rehearse:
            return await self._rehearse()
        self._wanted = launch_or_none(self._image, self._request, self._qmp_socket)
        self._starter = Starter(self._session, self._request, self._qmp_socket)
        try:
            async with contextlib.AsyncExitStack() as cleanup:
                monitor = await self._get_qemu()
                if monitor is None:
                    return self._report.planned(self._plan_alone(self._starter.launch), None)
                cleanup.push_async_callback(uninterrupted, monitor.close())
                return await self._use(monitor)
        except BaseException as exc:
            await uninterrupted(fail(self._session, self._starter, self._qmp_socket, exc))
        finally:
            await uninterrupted(self._starter.let_go())

    async def _rehearse(self) -> RestoreOutcome:
        check_image(self._image, self._request, story_of(self._image))
        rehearsed = await rehearse(
            self._session, self._request, self._qmp_socket, check_mode=self._check_mode
        )
        verb = "Would rehearse" if self._check_mode else "Rehearsed, and it loads:"
        self._report.state_found = "absent"
        outcome = self._report.outcome(
            rehearsed.plan, None, "absent", changed=False, report=rehearsed.report
        )
        return replace(outcome, message=f"{verb} {self._image.name} from {self._image.path}.")

    def _plan_alone(self, launch: Launch | None) -> RestorePlan:
        origin = launch.origin if launch is not None else None
        return plan_without_qemu(
            self._image,
            self._request,
            launch=origin,
            checks=self._starter.checks,
            mapped_bytes=launch.mapped_bytes if launch is not None else 0,
        )

    @property
    def _argv(self) -> tuple[str, ...] | None:
        return self._wanted.argv if self._wanted is not None else None

    async def _look_inside(self) -> None:
        """What a compressed image tells of its guest is known only once its head is decoded."""
        compressor = compressor_of(self._image.compressor or "raw")
        if compressor is None:
            return
        head = await decode_head(self._session.fd, self._image.path, compressor)
        self._session.structure = replace(self._session.structure, head=head)
        self._session.image = replace(
            self._image, machine_type=head.machine, ram_blocks=ram_sizes(head)
        )

    async def _get_qemu(self) -> Monitor | None:
        """The QEMU on the socket, else one that is started; None in check mode without one."""
        try:
            return await Monitor.connect(self._qmp_socket)
        except NoListener:
            check_image(self._image, self._request, story_of(self._image))
            started = find_with(self._argv) if self._argv is not None else None
            if started is None or self._check_mode:
                await self._starter.prepare(
                    may_be_unknown=self._check_mode, replaces=started is not None
                )
        if self._check_mode:
            return None
        if started is not None:
            self._session.actions.append(
                f"found the QEMU (pid {started.pid}) that a run that died started"
            )
            return await wait_for_other(started, self._qmp_socket, self._session.deadline)
        return await self._starter.start()

    async def _use(self, monitor: Monitor) -> RestoreOutcome:
        self._session.step = "looking at the QEMU"
        guest = await observe(monitor, incoming=True)
        if self._check_mode:
            return await self._use_held(monitor, guest)
        with guest_lock(guest.process, self._qmp_socket):
            return await self._use_held(monitor, guest)

    async def _use_held(self, monitor: Monitor, guest: Guest) -> RestoreOutcome:
        if self._report.state_found is None:
            self._report.state_found = "absent" if self._starter.launched else guest.run_state
        recovery = Recovery(self._session, monitor, self._argv)
        if self._check_mode:
            remedy = await recovery.foresee(guest)
            self._report.recovers = recovery.recovers
            if remedy in (Remedy.WAIT, Remedy.END):
                if remedy is Remedy.END:
                    await self._starter.prepare(may_be_unknown=True, replaces=True)
                return self._report.planned(self._plan_alone(self._starter.launch), guest)
            if remedy is Remedy.FINISH:
                self._session.image = replace(self._image, loaded_into=guest.process)
        else:
            left = await recovery.run(guest)
            self._report.recovers = self._report.recovers or recovery.recovers
            if left is None:
                return await self._use_another(monitor)
            guest = left
            if recovery.recovers is not None:
                self._session.image = described_again(self._session.fd, self._image)
        if guest.run_state != WAITING:
            return await self._use_live(monitor, guest)
        mapped = self._mapped_in(guest)
        if self._starter.launched is None:
            self._starter.look_again(guest.process, self._wanted if mapped else None)
        if not mapped:
            size = self._session.structure.allocated_bytes
            measured = await known_speed(
                self._request,
                for_restoring,
                guest.qemu_version,
                size,
                may_measure=not self._check_mode,
            )
            self._request = replace(self._request, measured=measured)
        waiting = WaitingQemu(self._session, self._request, monitor, guest, mapped)
        plan = await waiting.plan(self._starter)
        if self._check_mode or plan.negotiated is None:
            return self._report.planned(plan, guest)
        # Not before the plan has shown that this QEMU is the guest's: the files may be another's.
        await waiting.empty_memory()
        destination = Destination(monitor, guest, plan, plan.negotiated)
        report = (
            await load_around(self._session, destination, mapped)
            if mapped
            else await load(self._session, destination)
        )
        if plan.run_afterwards:
            await uninterrupted(self._run(monitor, guest, mapped))
        await self._starter.settle(guest.process)
        if mapped:
            await read_ahead(self._session, guest, mapped, self._request.prefetch)
        return self._report.outcome(
            plan, guest, self._session.guest_state, changed=True, report=report
        )

    def _mapped_in(self, guest: Guest) -> tuple[ImageBlock, ...]:
        """RAM blocks that the waiting QEMU was told to map from the image. Raises `Refused` when it
        is not a QEMU that this restore may use as it was asked to."""
        wanted = self._wanted
        ours = self._starter.launched is not None or (
            wanted is not None and runs_with(guest.process, wanted.argv)
        )
        if ours:
            return wanted.mapped if wanted is not None else ()
        if self._request.argv is not None:
            raise Refused(
                f"A QEMU already waits on {self._qmp_socket}; argv would start a second "
                "one on the same socket. Leave argv out to use the one that waits, or end it."
            )
        if self._request.load == LAZY:
            raise Refused(
                f"A QEMU already waits on {self._qmp_socket}, with RAM of its own. To map the RAM "
                "from the image, this module must start QEMU itself: end that one, or set load to "
                "eager."
            )
        return ()

    async def _use_another(self, ended: Monitor) -> RestoreOutcome:
        """A QEMU of our own in place of the one that a dead run left unusable."""
        await ended.close()
        await self._starter.prepare(may_be_unknown=False)
        monitor = await self._starter.start()
        try:
            return await self._use(monitor)
        finally:
            await monitor.close()

    async def _run(self, monitor: Monitor, guest: Guest, mapped: t.Sequence[ImageBlock]) -> None:
        await run_guest(self._session, monitor, guest)
        if self._request.remove_image:
            remove_image(self._session)
        elif mapped:
            keep_from_changing(self._session)

    async def _use_live(self, monitor: Monitor, guest: Guest) -> RestoreOutcome:
        decision = decide_for_live_guest(self._image, guest, self._request)
        mapped = blocks_mapped_by(self._session, guest)
        plan = live_plan(
            self._image,
            guest,
            self._request,
            decision,
            mapped_bytes=sum(block.length_bytes for block in mapped),
        )
        runs_on = decision == "unchanged" and guest.run_state == "running"
        removes = runs_on and self._request.remove_image and self._image.state == "spent"
        if self._check_mode and (decision == "continue" or removes or self._report.recovers):
            return self._report.planned(plan, guest)
        if decision == "continue":
            if mapped:
                prove(self._session, guest, mapped)
            await uninterrupted(self._run(monitor, guest, mapped))
            await self._starter.settle(guest.process)
            if mapped:
                await read_ahead(self._session, guest, mapped, self._request.prefetch)
            return self._report.outcome(plan, guest, self._session.guest_state, changed=True)
        mine = guest.process is not None and self._image.loaded_into == guest.process
        unnoted = mine and self._image.state == "spent" and not self._image.continued
        if runs_on and unnoted and not self._check_mode:
            note_running(self._session, guest)
        if removes:
            remove_image(self._session)
        elif runs_on and mapped and not self._check_mode:
            keep_from_changing(self._session)
        settled = not self._check_mode and await self._starter.settle(guest.process)
        changed = removes or settled or self._report.recovers is not None
        return self._report.outcome(plan, guest, guest.run_state, changed=changed)
