# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a restore: one image becomes one guest again (DESIGN.md, Restore)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import typing as t
from dataclasses import replace

from .._errors import Refused, VmfleetError
from .._failure import facts_of, words_of
from .._image_record import describe, described_again, ram_sizes
from .._pipeline import decode_head
from .._qemu._argv import incoming_argv
from .._qemu._deadline import Deadline
from .._qemu._fdset import DIRECT_IO_BYTES, direct_io_refusal
from .._qemu._fresh_ram import stale_backends
from .._qemu._guest import Guest, observe
from .._qemu._guest_lock import guest_lock
from .._qemu._launch import (
    LaunchedQemu,
    launch,
    resolve_program,
    wait_for_monitor,
    wait_for_other,
)
from .._qemu._migration import MigrationReport
from .._qemu._monitor import Monitor, NoListener
from .._qemu._process import find_with, runs_with
from .._saveimage._compressors import compressor_of
from .._saveimage._lock import lock_image
from .._saveimage._publish import refuse_unfinished
from .._saveimage._verify import verify_structure
from .._uninterrupted import finished_first, uninterrupted
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
    plan_load,
    plan_without_qemu,
)
from ._recover import Recovery
from ._recovery import Remedy
from ._request import RestoreRequest


class RestoreFailed(VmfleetError):
    """A restore that had begun failed; the message says what became of image and QEMU."""


async def restore(request: RestoreRequest, *, check_mode: bool) -> RestoreOutcome:
    """Bring the guest of ``request.path`` back, or find that it was brought back before.

    Raises `Refused` before anything was loaded and `RestoreFailed` afterwards; `ImageInvalid` and
    `ImageLocked` come from reading the image.
    """
    refuse_unfinished(request.path)
    fd = lock_image(request.path, write=not check_mode)
    try:
        return await _Restore(request, fd, check_mode=check_mode).execute()
    finally:
        os.close(fd)


class _Restore:
    def __init__(self, request: RestoreRequest, fd: int, *, check_mode: bool) -> None:
        self._started = time.monotonic()
        self._request = request
        self._check_mode = check_mode
        self._image = describe(fd, request.path)
        self._session = RestoreSession(self._image, fd, Deadline(request.timeout_seconds))
        self._launched: LaunchedQemu | None = None
        self._launched_ended = False
        self._argv: list[str] | None = None
        self._argv_changes: tuple[str, ...] = ()
        self._state_found: str | None = None
        self._recovers: dict[str, str] | None = None

    async def execute(self) -> RestoreOutcome:
        if self._image.state == "partial":
            check_image(self._image, self._request)
        self._structure = verify_structure(self._session.fd, self._image.path)
        await self._look_inside()
        try:
            async with contextlib.AsyncExitStack() as cleanup:
                monitor = await self._get_qemu()
                if monitor is None:
                    return self._planned(
                        plan_without_qemu(
                            self._image,
                            self._request,
                            start_qemu=self._request.argv is not None,
                        ),
                        None,
                    )
                cleanup.push_async_callback(monitor.close)
                return await self._use(monitor)
        except BaseException as exc:
            await uninterrupted(self._fail(exc))
        finally:
            if self._launched is not None:
                await self._launched.let_go()

    async def _look_inside(self) -> None:
        """What a compressed image tells of its guest is known only once its head is decoded."""
        compressor = compressor_of(self._image.compressor or "raw")
        if compressor is None:
            return
        head = await decode_head(self._session.fd, self._image.path, compressor)
        self._structure = replace(self._structure, head=head)
        self._image = self._session.image = replace(
            self._image, machine_type=head.machine, ram_blocks=ram_sizes(head)
        )

    async def _get_qemu(self) -> Monitor | None:
        """The QEMU on the socket, else one started from argv; None in check mode without one."""
        request = self._request
        if request.argv is not None:
            self._argv, self._argv_changes = incoming_argv(request.argv, request.qmp_socket)
        try:
            return await Monitor.connect(request.qmp_socket)
        except NoListener as exc:
            check_image(self._image, request)
            if self._argv is not None:
                resolve_program(self._argv[0])
            if self._check_mode:
                return None
            if self._argv is None:
                raise Refused(
                    f"{exc.message} Start a QEMU there with -incoming defer -S, or give argv and "
                    "this module starts it."
                ) from exc
            started = find_with(self._argv)
        if started is not None:
            self._session.actions.append(
                f"found the QEMU (pid {started.pid}) that a run that died started"
            )
            return await wait_for_other(started, request.qmp_socket, self._session.deadline)
        return await self._start_qemu()

    async def _start_qemu(self) -> Monitor:
        self._session.step = "starting QEMU"
        self._launched = await finished_first(launch(self._argv or ()))
        self._session.actions += [f"started QEMU (pid {self._launched.pid})", *self._argv_changes]
        return await wait_for_monitor(
            self._launched, self._request.qmp_socket, self._session.deadline
        )

    async def _use(self, monitor: Monitor) -> RestoreOutcome:
        self._session.step = "looking at the QEMU"
        guest = await observe(monitor, incoming=True)
        if self._check_mode:
            return await self._use_held(monitor, guest)
        with guest_lock(guest.process, self._request.qmp_socket):
            return await self._use_held(monitor, guest)

    async def _use_held(self, monitor: Monitor, guest: Guest) -> RestoreOutcome:
        if self._state_found is None:
            self._state_found = "absent" if self._launched else guest.run_state
        ours = self._launched is not None or (
            self._argv is not None and runs_with(guest.process, self._argv)
        )
        recovery = Recovery(self._session, monitor, self._argv)
        if self._check_mode:
            remedy = await recovery.foresee(guest)
            self._recovers = recovery.recovers
            if remedy in (Remedy.WAIT, Remedy.END):
                return self._planned(
                    plan_without_qemu(self._image, self._request, start_qemu=remedy is Remedy.END),
                    guest,
                )
            if remedy is Remedy.FINISH:
                self._image = replace(self._image, loaded_into=guest.process)
        else:
            left = await recovery.run(guest)
            self._recovers = self._recovers or recovery.recovers
            if left is None:
                return await self._use_another(monitor)
            guest = left
            if recovery.recovers is not None:
                self._image = self._session.image = described_again(self._session.fd, self._image)
        if guest.run_state != WAITING:
            return await self._use_live(monitor, guest)
        if self._request.argv is not None and not ours:
            raise Refused(
                f"A QEMU already waits on {self._request.qmp_socket}; argv would start a second "
                "one on the same socket. Leave argv out to use the one that waits, or end it."
            )
        plan = await self._plan(monitor, guest)
        if self._check_mode or plan.negotiated is None:
            return self._planned(plan, guest)
        report = await load(self._session, Destination(monitor, guest, plan, plan.negotiated))
        if plan.run_afterwards:
            await uninterrupted(self._run(monitor, guest))
        return self._outcome(plan, guest, self._session.guest_state, changed=True, report=report)

    async def _use_another(self, ended: Monitor) -> RestoreOutcome:
        """A QEMU of our own in place of the one that a dead run left unusable."""
        await ended.close()
        monitor = await self._start_qemu()
        try:
            return await self._use(monitor)
        finally:
            await monitor.close()

    async def _run(self, monitor: Monitor, guest: Guest) -> None:
        await run_guest(self._session, monitor, guest)
        if self._request.remove_image:
            remove_image(self._session)

    async def _plan(self, monitor: Monitor, guest: Guest) -> RestorePlan:
        proved: bool | None = None
        if self._request.bypass_cache:
            offset = self._image.data_offset_bytes // DIRECT_IO_BYTES * DIRECT_IO_BYTES
            proved = direct_io_refusal(self._session.fd, offset, write=False) is None
        return plan_load(
            self._image,
            guest,
            self._request,
            start_qemu=self._launched is not None,
            cpu_count=len(os.sched_getaffinity(0)),
            direct_io_proved=proved,
            stale_backends=await stale_backends(monitor, guest.process),
        )

    async def _use_live(self, monitor: Monitor, guest: Guest) -> RestoreOutcome:
        decision = decide_for_live_guest(self._image, guest, self._request)
        plan = live_plan(self._image, guest, self._request, decision)
        runs_on = decision == "unchanged" and guest.run_state == "running"
        removes = runs_on and self._request.remove_image and self._image.state == "spent"
        if self._check_mode and (decision == "continue" or removes or self._recovers):
            return self._planned(plan, guest)
        if decision == "continue":
            await uninterrupted(self._run(monitor, guest))
            return self._outcome(plan, guest, self._session.guest_state, changed=True)
        mine = guest.process is not None and self._image.loaded_into == guest.process
        unnoted = mine and self._image.state == "spent" and not self._image.continued
        if runs_on and unnoted and not self._check_mode:
            note_running(self._session, guest)
        if removes:
            remove_image(self._session)
        changed = removes or self._recovers is not None
        return self._outcome(plan, guest, guest.run_state, changed=changed)

    # When it fails.

    async def _fail(self, cause: BaseException) -> t.NoReturn:
        """End the QEMU that this run started, if its vCPUs never ran, and say what is left."""
        step, said = self._session.step, ""
        if self._launched is not None:
            said = self._launched.stderr_tail()
            if not self._session.may_have_run:
                await self._launched.end()
                self._launched_ended = True
                self._session.actions.append("ended the QEMU that was started")
        if isinstance(cause, Refused) or not isinstance(
            cause, (VmfleetError, OSError, asyncio.CancelledError)
        ):
            raise cause
        raise RestoreFailed(
            f"Restoring {self._image.path} failed while {step}: {words_of(cause)}"
            + (f" QEMU said: {said}." if said else "")
            + f" {self._advice()}",
            **facts_of(cause),
            step=step,
            guest={
                "name": self._image.name,
                "uuid": self._image.uuid,
                "state": self._guest_state(),
            },
            image={"path": self._image.path, "state": self._session.image_state},
            actions=list(self._session.actions),
            changed=self._session.may_have_run,
        ) from cause

    def _guest_state(self) -> str:
        if self._session.may_have_run and self._session.guest_state != "running":
            return "unknown"
        return "absent" if self._launched_ended else self._session.guest_state

    def _advice(self) -> str:
        state = self._session.image_state
        if self._session.guest_state == "running":
            return f"The guest runs, and the image is {state}."
        if self._session.may_have_run:
            return (
                f"The image is {state}; whether the guest's vCPUs ran is not known. Look with "
                f"query-status on {self._request.qmp_socket}."
            )
        kept = f"The image is unharmed and {state}."
        if self._launched is not None:
            return f"{kept} The QEMU that this run started was ended; no guest runs."
        if not self._session.load_began:
            return f"{kept} The QEMU on {self._request.qmp_socket} still waits."
        return (
            f"{kept} The QEMU on {self._request.qmp_socket} cannot be used for another try: end "
            "it and start a new one."
        )

    # The result.

    def _planned(self, plan: RestorePlan, guest: Guest | None) -> RestoreOutcome:
        if plan.run_afterwards:
            self._session.image_state = "removed" if self._request.remove_image else "spent"
        state = "running" if plan.run_afterwards else "paused"
        return self._outcome(plan, guest, state, changed=True)

    def _outcome(
        self,
        plan: RestorePlan,
        guest: Guest | None,
        state: str,
        *,
        changed: bool,
        report: MigrationReport | None = None,
    ) -> RestoreOutcome:
        verb = "Would restore" if self._check_mode else "Restored"
        return RestoreOutcome(
            changed=changed,
            message=f"{verb} {self._image.name} from {self._image.path}."
            if changed
            else f"{self._image.name} was restored from {self._image.path} before.",
            plan=replace(plan, recovers=self._recovers),
            saved=self._image,
            structure=self._structure,
            state_before=self._state_found or "absent",
            state_after=state,
            image_state_after=self._session.image_state,
            pid=guest.process.pid if guest is not None and guest.process is not None else None,
            migration=report,
            duration_seconds=round(time.monotonic() - self._started, 3),
            actions=tuple(self._session.actions),
        )
