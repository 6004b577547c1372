# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Finishing or undoing what a run that died has begun, before anything new is done."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, replace

from .._errors import DeadlineExceeded, ImageInvalid, Refused, VmfleetError
from .._failure import words_of
from .._image_record import SavedImage, describe_target
from .._qemu._bookmark import RESTORE, Found, find_bookmarks
from .._qemu._deadline import Deadline
from .._qemu._guest import Guest, observe
from .._qemu._migration import Migration, MigrationReport, wait_for_run_state
from .._qemu._monitor import Monitor
from .._saveimage._publish import PartialImage, target_of
from .._saveimage._verify import verify_structure
from .._uninterrupted import uninterrupted
from ._leave import leave
from ._leftover import THIS, Leftover, places, read_leftover, remembered_only
from ._outcome import SaveOutcome, saved
from ._planning import wanted_kind
from ._recovery import Decision, Remedy, decide
from ._request import SaveRequest
from ._resume import before_of, guest_before, hold_of, plan_of, session_of
from ._session import SaveSession
from ._steps import CONTENT, compare_content, publish_image, verify_image
from ._undo import SaveFailed, advice, put_back, undo

# One run leaves one file; several dead runs into several paths leave as many.
_MOST_LEFTOVERS = 16


@dataclass(frozen=True)
class Case:
    """One leftover, what is to be done about it, and its file, locked; None when it is gone."""

    leftover: Leftover
    decision: Decision
    image: PartialImage | None

    @property
    def ends_the_run(self) -> bool:
        """Whether the remedy is the save that was asked for."""
        return self.decision.remedy in (Remedy.FINISH, Remedy.LEAVE)

    def facts(self) -> dict[str, str]:
        """As a plan shows it."""
        return {
            "path": self.leftover.path,
            "remedy": self.decision.remedy.value,
            "reason": self.decision.reason,
        }

    def close(self) -> None:
        """Release the file's lock."""
        if self.image is not None:
            self.image.close()


async def next_case(request: SaveRequest, monitor: Monitor, guest: Guest) -> Case | None:
    """The first leftover that calls for a remedy; the caller closes it.

    Raises `ImageLocked` while the run it belongs to lives, `Refused` where only the operator can
    decide.
    """
    found = await find_bookmarks(monitor)
    for item in found:
        if item.bookmark.doing == RESTORE:
            raise Refused(
                f"A restore of {item.bookmark.path} into the QEMU on {request.qmp_socket} was "
                "begun by a run that died. Run that restore again, or end this QEMU."
            )
    seen: set[int] = set()
    for path in places(request.path, found):
        # A published image matters while QEMU still holds its guest, or remembers its save.
        hidden = path != target_of_either(path)
        if not (hidden or found or guest.run_state == "postmigrate"):
            continue
        case = _look(request, path, guest, found, seen)
        if case is not None:
            return case
    for item in found:
        if item.fdset_id not in seen:
            leftover = remembered_only(item)
            return Case(leftover, _decide(request, leftover, guest), None)
    return None


def target_of_either(path: str) -> str:
    """The target, whichever of an image's two names ``path`` is."""
    name = path.rpartition("/")[2]
    return target_of(path) if name.startswith(".") and name.endswith(".partial") else path


def _look(
    request: SaveRequest, path: str, guest: Guest, found: t.Sequence[Found], seen: set[int]
) -> Case | None:
    image = PartialImage.adopt(target_of_either(path), path)
    if image is None:
        return None
    try:
        leftover = read_leftover(image, guest, found)
        if leftover is not None:
            if leftover.fdset_id is not None:
                seen.add(leftover.fdset_id)
            decision = _decide(request, leftover, guest)
            if decision.remedy is not Remedy.NOTHING:
                kept, image = image, None
                return Case(leftover, decision, kept)
        return None
    finally:
        if image is not None:
            image.close()


def _decide(request: SaveRequest, leftover: Leftover, guest: Guest) -> Decision:
    kind = wanted_kind(request)
    wanted = (leftover.target, leftover.version, leftover.image_format) == (
        request.path,
        kind.version,
        kind.image_format,
    )
    return decide(leftover, guest.run_state, guest.migration_status, wanted=wanted)


def guest_after(case: Case, guest: Guest) -> Guest:
    """What check mode plans from: the guest as it will be when the remedy was applied."""
    if case.leftover.owner != THIS:
        return guest
    after = guest_before(case.leftover, guest)
    return replace(after, run_state=guest.run_state) if _tidies(case) else after


def _tidies(case: Case) -> bool:
    return case.decision.remedy is Remedy.TIDY


class Unproven(VmfleetError):
    """What QEMU wrote may not be the guest's present RAM."""


class Recovery:
    """The remedies of one run. ``actions``: what was done; ``recovers``: for what, as the plan
    shows it, None when there was nothing."""

    def __init__(
        self, request: SaveRequest, monitor: Monitor, deadline: Deadline, started: float
    ) -> None:
        self._request = request
        self._monitor = monitor
        self._deadline = deadline
        self._started = started
        self.actions: list[str] = []
        self.recovers: dict[str, str] | None = None

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
            guest = await observe(self._monitor)
        raise Refused(
            f"More than {_MOST_LEFTOVERS} saves of this guest were left by runs that died."
        )

    async def _treat(
        self, case: Case, guest: Guest, existing: SavedImage | None
    ) -> SaveOutcome | None:
        self.recovers = self.recovers or case.facts()
        leftover, remedy = case.leftover, case.decision.remedy
        self.actions.append(
            f"found {leftover.path}, left by a run that died: {case.decision.reason}"
        )
        if case.image is None or remedy in (Remedy.TIDY, Remedy.CONTINUE):
            await self._release(leftover, guest, continues=not _tidies(case))
        elif remedy is Remedy.REMOVE:
            case.image.discard()
            self.actions.append(f"removed {leftover.path}")
        elif remedy is Remedy.PUBLISH:
            give_name(case.image, leftover)
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
                return await self._finish(session, guest, existing)
            await self._undo(session)
        return None

    async def _release(self, leftover: Leftover, guest: Guest, *, continues: bool) -> None:
        hold = hold_of(self._monitor, leftover, guest)
        hold.actions = self.actions
        state = await uninterrupted(hold.release(lambda: continues))
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
        undone = await uninterrupted(put_back(session))
        before = session.plan.run_state_before
        if undone.state != before or not undone.removed:
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
        self, session: SaveSession, guest: Guest, existing: SavedImage | None
    ) -> SaveOutcome | None:
        """Verify and publish what QEMU wrote; what does not verify is undone, and None returned."""
        try:
            report = await self._await_end(session)
            structure, verified = await verify_image(session, report)
            if verified != CONTENT and session.was_running:
                raise Unproven("It cannot be proved that the guest has not run since.")
            publish_image(session)
        except (VmfleetError, OSError) as exc:
            if isinstance(exc, DeadlineExceeded) or session.image.committing:
                await uninterrupted(undo(session, exc))
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
            await self._prove(session)
        if not leftover.published:
            give_name(session.image, leftover)
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

    async def _prove(self, session: SaveSession) -> None:
        session.step = "comparing the image with the guest's RAM"
        image = session.image
        try:
            structure = await session.in_thread(lambda: verify_structure(image.fd, image.path))
            await compare_content(session, structure)
        except ImageInvalid as exc:
            raise Refused(
                f"{exc.message}: the guest on {self._monitor.path} has run since the image was "
                "taken, or the image was changed. Neither was touched. If the guest is right, "
                "remove the image and continue the guest with cont; if the image is, end that QEMU."
            ) from exc

    async def _await_end(self, session: SaveSession) -> MigrationReport:
        session.step = "waiting for QEMU to write what the run that died asked for"
        migration = Migration(self._monitor, session.guest.process)
        report = await migration.join(self._deadline)
        session.migrating = False
        await wait_for_run_state(self._monitor, ("postmigrate",))
        return report


def give_name(image: PartialImage, leftover: Leftover) -> None:
    """Publish a whole image that only lacks its name, unless that would cost another one.

    Raises `Refused` when another guest's ready image, or none of ours, has the name meanwhile.
    """
    there = describe_target(leftover.target)
    if there is not None and there.state == "ready" and there.uuid != leftover.uuid:
        raise Refused(
            f"{leftover.path} is a whole image of {leftover.name or 'a guest'}, left by a run that "
            f"died; its name {leftover.target} is taken by the ready image of "
            f"{there.name or 'another guest'}. Move one of them, then run again."
        )
    image.give_name()
