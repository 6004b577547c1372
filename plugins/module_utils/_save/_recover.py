# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Finishing or undoing what a run that died has begun, before anything new is done."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from .._errors import DeadlineExceeded, ImageInvalid, Refused, VmfleetError
from .._failure import words_of
from .._image_record import SavedImage
from .._qemu._deadline import Deadline
from .._qemu._guest import Guest, observe
from .._qemu._migration import Migration, MigrationReport, wait_for_run_state
from .._qemu._monitor import Monitor
from .._saveimage._verify import verify_structure
from .._uninterrupted import finished_first, uninterrupted
from ._cases import Case, next_case, tidies
from ._hold import CRASHED, UNKNOWN
from ._leave import leave
from ._leftover import Leftover
from ._naming import give_name, name_held
from ._outcome import SaveOutcome, saved
from ._recovery import Remedy
from ._request import SaveRequest
from ._resume import before_of, hold_of, plan_of, session_of
from ._session import SaveSession
from ._steps import CONTENT, compare_content, note_disks, publish_image, verify_image
from ._undo import SaveFailed, advice, put_back, undo

# One run leaves one file; several dead runs into several paths leave as many.
_MOST_LEFTOVERS = 16
_HELD = ("paused", "finish-migrate", "postmigrate", UNKNOWN, CRASHED)


class Unproven(VmfleetError):
    """What QEMU wrote may not be the guest's present RAM."""


class Recovery:
    """The remedies of one run. ``actions``: what was done; ``recovers``: for what, as the plan
    shows it, None when there was nothing; ``applied``: the guest, its QEMU or the store was
    changed."""

    def __init__(
        self, request: SaveRequest, monitor: Monitor, deadline: Deadline, started: float
    ) -> None:
        self._request = request
        self._monitor = monitor
        self._deadline = deadline
        self._started = started
        self.actions: list[str] = []
        self.recovers: dict[str, str] | None = None
        self.applied = False

    async def run(self, guest: Guest, existing: SavedImage | None) -> SaveOutcome | None:
        """Finish or undo every leftover; the outcome when that was the save asked for.

        Raises `SaveFailed` when a guest could not be brought back to what it was, and as
        `next_case`.
        """
        for _round in range(_MOST_LEFTOVERS):
            case = await next_case(self._request, self._monitor, guest)
            if case is None:
                return None
            with contextlib.closing(case):
                outcome = await self._treat(case, guest, existing)
            if outcome is not None:
                return outcome
            self.applied = True
            guest = await observe(self._monitor)
        raise Refused(
            f"More than {_MOST_LEFTOVERS} saves of this guest were left by runs that died."
        )

    async def _treat(
        self, case: Case, guest: Guest, existing: SavedImage | None
    ) -> SaveOutcome | None:
        self.recovers = self.recovers or case.facts()
        leftover, remedy = case.leftover, case.decision.remedy
        if case.is_left_by_a_dead_run:
            self.actions.append(
                f"found {leftover.path}, left by a run that died: {case.decision.reason}"
            )
        if case.image is None or remedy in (Remedy.TIDY, Remedy.CONTINUE):
            await self._release(leftover, guest, continues=not tidies(case))
        elif remedy is Remedy.REMOVE:
            case.image.discard()
            self.actions.append(f"removed {leftover.path}")
        elif remedy is Remedy.PUBLISH:
            give_name(case.image, leftover, overwrite=self._request.overwrite)
            self.actions.append(f"published {leftover.target}")
        else:
            plan = replace(
                plan_of(leftover, guest, self._request, existing), recovers=self.recovers
            )
            session = session_of(self._monitor, guest, leftover, plan, case.image, self._deadline)
            session.actions = self.actions
            if remedy is Remedy.LEAVE:
                return await self._let_go(session, leftover, guest, existing)
            if remedy is Remedy.FINISH:
                return await self._finish(session, leftover, guest, existing)
            await self._undo(session)
        return None

    async def _release(self, leftover: Leftover, guest: Guest, *, continues: bool) -> None:
        hold = hold_of(self._monitor, leftover, guest)
        hold.actions = self.actions
        hold.was_running = hold.was_running and continues
        state = await finished_first(hold.release(lambda: True))
        wanted = "running" if leftover.continues else before_of(leftover, guest).run_state
        if continues and state != wanted:
            raise SaveFailed(
                f"The guest on {self._monitor.path}, held by a run that died, could not be "
                f"brought back: it is in run state {state}. Look with query-status; from paused "
                "or postmigrate, cont continues it.",
                step=hold.step,
                guest={"name": leftover.name, "uuid": leftover.uuid, "state": state},
                actions=list(self.actions),
            )

    async def _undo(self, session: SaveSession) -> None:
        undone = await finished_first(put_back(session))
        before = session.plan.run_state_before
        # What an operator made of the guest meanwhile is no failure.
        held = undone.state != before and undone.state in _HELD
        if held or not undone.removed:
            raise SaveFailed(
                f"Undoing the save of {session.plan.name} that a run left failed. "
                + advice(undone, before, session.image.path, self._monitor.path),
                step=session.step,
                guest={
                    "name": session.plan.name,
                    "uuid": session.plan.uuid,
                    "state": undone.state,
                },
                actions=list(self.actions),
            )

    async def _finish(
        self, session: SaveSession, leftover: Leftover, guest: Guest, existing: SavedImage | None
    ) -> SaveOutcome | None:
        """Verify and publish what QEMU wrote; what does not verify is undone, and None returned."""
        try:
            report = await self._await_end(session)
            await note_disks(session)
            structure, verified = await verify_image(session, report)
            if verified != CONTENT and session.was_running:
                raise Unproven("It cannot be proved that the guest has not run since.")
            with name_held(leftover, overwrite=self._request.overwrite):
                publish_image(session)
        except Refused:
            raise
        except (VmfleetError, OSError) as exc:
            if isinstance(exc, DeadlineExceeded) or session.image.committing:
                await uninterrupted(undo(session, exc))
            if isinstance(exc, ImageInvalid) and leftover.is_mapped_ram:
                # QEMU ends such a file by itself: this is not the state that it was taken from.
                raise self._not_ours(exc) from exc
            self.actions.append(f"could not finish it while {session.step}: {words_of(exc)}")
            await self._undo(session)
            return None
        except BaseException as exc:
            await uninterrupted(undo(session, exc))
        state, image_state = await uninterrupted(leave(session))
        return saved(
            session,
            existing,
            started=self._started,
            state_before=guest.run_state,
            state=state,
            image_state=image_state,
            structure=structure,
            verified=verified,
            migration=report,
        )

    async def _let_go(
        self, session: SaveSession, leftover: Leftover, guest: Guest, existing: SavedImage | None
    ) -> SaveOutcome:
        """The image is ready: give it its name, and the guest what was asked for. What fails before
        that leaves both as they were found."""
        if self._request.guest_state != "paused":
            await self._prove(session, leftover)
        if not leftover.published:
            give_name(session.image, leftover, overwrite=self._request.overwrite)
            self.actions.append(f"published {leftover.target}")
        began = len(self.actions)
        state, image_state = await uninterrupted(leave(session))
        return saved(
            session,
            existing,
            started=self._started,
            state_before=guest.run_state,
            state=state,
            image_state=image_state,
            changed=not leftover.published or len(self.actions) > began,
        )

    async def _prove(self, session: SaveSession, leftover: Leftover) -> None:
        session.step = "comparing the image with the guest's RAM"
        image = session.image
        try:
            structure = await session.in_thread(lambda: verify_structure(image.fd, image.path))
            verified = await compare_content(session, structure)
        except ImageInvalid as exc:
            raise self._not_ours(exc) from exc
        if verified != CONTENT and leftover.fdset_id is None:
            raise Refused(
                f"The guest on {self._monitor.path} was saved into {image.path} and left in "
                "postmigrate; that it has not run since cannot be proved for this image. If it has "
                "not, end that QEMU yourself (quit), or remove the image and continue the guest "
                "(cont)."
            )

    def _not_ours(self, cause: ImageInvalid) -> Refused:
        return Refused(
            f"{cause.message}: the guest on {self._monitor.path} has run since the image was "
            "taken, or the image was changed; perhaps the guest was migrated away since. Neither "
            "was touched. If the guest is right and runs nowhere else, remove the image and "
            "continue the guest with cont; if the image is, end that QEMU."
        )

    async def _await_end(self, session: SaveSession) -> MigrationReport:
        session.step = "waiting for QEMU to write what the run that died asked for"
        migration = Migration(self._monitor, session.guest.process)
        report = await migration.join(self._deadline)
        session.migrating = False
        await wait_for_run_state(self._monitor, ("postmigrate",))
        return report
