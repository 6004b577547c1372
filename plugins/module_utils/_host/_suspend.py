# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a suspend: every guest of a host becomes an image (DESIGN.md, the journal)."""

from __future__ import annotations

import asyncio
import os
import time
import typing as t
from dataclasses import dataclass

from .._errors import Refused, VmfleetError
from .._failure import words_of
from .._uninterrupted import finished_first, in_thread, uninterrupted
from ._bring_back import as_before, bring_back
from ._competing import find
from ._competing_off import apply_disable, plan_disable, put_all_back
from ._competing_values import UNIT_RESTART, UNIT_START
from ._discovery import discover
from ._gone import NOTHING, UNREACHABLE, Gone, look_for_gone
from ._journal import Journal
from ._journal_file import (
    JournalWriter,
    open_journal,
    read_journals,
    refuse_beside_another,
)
from ._look import look_at, speeds_of, stores_of
from ._new_journal import entry_of, new_journal, replanned
from ._outcome import GuestResult, HostFailed, HostOutcome
from ._plan import GuestPlan, HostPlan, make_plan
from ._requests import DISABLE, ROLLBACK, SuspendRequest
from ._resume_plan import RESTORE, SAVED, Awaited, make_resume_plan, waits
from ._run import Run
from ._saving import Saving
from ._space import Space
from ._together import all_of, make_room
from ._wishes import FAIL, LEAVE, SAVE, selected


@dataclass(frozen=True)
class Sight:
    """Everything that was seen of a host, and the plan made from it."""

    journal: Journal | None
    plan: HostPlan
    gone: tuple[Gone, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether a run would change nothing."""
        return not any(self.plan.tiers()) and not any(gone.changes for gone in self.gone)


async def suspend(request: SuspendRequest, *, check_mode: bool) -> HostOutcome:
    """Save all guests of this host, or find that they were saved before.

    Raises `Refused` with the plan before anything was touched, and `HostFailed` with what became
    of each guest afterwards.
    """
    began = time.monotonic()
    refuse_beside_another(request.journal)
    sight = await _look(request, may_measure=not check_mode)
    if sight.plan.problems:
        raise Refused(
            "This host was not suspended, and nothing was touched. "
            + " ".join(
                problem if problem.endswith(".") else f"{problem}."
                for problem in sight.plan.problems
            )
            + " Each guest's policy (shutdown, leave, save) says what else may happen to it.",
            plan=sight.plan.as_dict(),
            guests=[result.as_dict() for result in _results(sight)],
        )
    if check_mode or sight.nothing_to_do:
        return _foreseen(sight, began, check_mode=check_mode)
    writer = _begin_journal(request, sight)
    try:
        return await _Suspend(request, sight, writer, began).execute()
    finally:
        await uninterrupted(writer.close())


def _begin_journal(request: SuspendRequest, sight: Sight) -> JournalWriter:
    """The open one, or a new one. Raises `Refused` when another run is at work, or has written it
    since this host was looked at."""
    if sight.journal is None:
        return JournalWriter.create(request.journal, new_journal(request))
    return JournalWriter.resume(request.journal, sight.journal)


async def _look(request: SuspendRequest, *, may_measure: bool) -> Sight:
    journals = read_journals(request.journal)
    journal = open_journal(journals, request.store)
    found = await discover(request.qmp_sockets, request.uri)
    guests = [
        guest
        for guest in found.guests
        if selected(guest.name, guest.uuid, request.include, request.exclude)
    ]
    make_room(len(guests) + (len(journal.entries) if journal is not None else 0))
    wishes = {guest.name: request.wishes.of(guest) for guest in guests}
    named = {n: w.save["systemd_unit"] for n, w in wishes.items() if "systemd_unit" in w.save}
    uri = next((guest.source.uri for guest in guests if guest.source.uri is not None), None)
    competing = await find(uri, guests, request.qemu_conf, named)
    own_units = {one.name for one in competing if one.kind in (UNIT_RESTART, UNIT_START)}
    speeds = await in_thread(lambda: speeds_of(request, guests, may_measure=may_measure))
    seen = await look_at(request, guests, own_units)
    gone = await look_for_gone(request, journal, {guest.key for guest in found.guests})
    plan = make_plan(
        request,
        seen,
        stores_of(seen, journals.journals, speeds),
        competing,
        [
            *(one.reason for one in found.unanswered if not one.dead),
            *(f"{one.entry.name}: {one.reason}" for one in gone if one.action == UNREACHABLE),
        ],
        cpu_count=len(os.sched_getaffinity(0)),
    )
    return Sight(journal, plan, gone)


def _results(sight: Sight, *, check_mode: bool = False) -> list[GuestResult]:
    """What is known of each guest before anything is done; in check mode, of what would be."""
    results = []
    for plan in sight.plan.guests:
        acts = plan.action not in (FAIL, LEAVE)
        results.append(
            GuestResult(
                plan.guest.name,
                plan.guest.uuid,
                plan.guest.source,
                plan.action,
                plan.reason,
                state="left" if plan.action == LEAVE else "planned",
                guest_state_before=plan.guest.state,
                guest_state="stopped" if check_mode and acts else plan.guest.state,
                changed=check_mode and acts,
                image_before=_identity_before(plan),
                image=_image_after(plan) if check_mode else {},
                predicted_seconds=plan.predicted_seconds,
            )
        )
    return results + [gone.result() for gone in sight.gone]


def _identity_before(plan: GuestPlan) -> dict[str, t.Any] | None:
    save = plan.seen.save
    return save.replaces.identity() if save is not None and save.replaces is not None else None


def _image_after(plan: GuestPlan) -> dict[str, t.Any]:
    save = plan.seen.save
    if save is None or plan.action != SAVE:
        return {}
    return {
        "path": save.path,
        "version": save.kind.version,
        "image_format": save.kind.image_format,
        "layout": save.kind.layout,
        "state": save.image_state_afterwards,
    }


def _foreseen(sight: Sight, began: float, *, check_mode: bool) -> HostOutcome:
    results = _results(sight, check_mode=check_mode)
    acted = [plan for tier in sight.plan.tiers() for plan in tier]
    changed = not sight.nothing_to_do
    if changed:
        message = f"Would suspend {len(acted)} guests of this host."
    elif sight.gone:
        there = sum(gone.action == NOTHING for gone in sight.gone)
        message = f"{there} of {len(sight.gone)} guests of this host were suspended before."
    else:
        message = "No guest that is meant runs on this host."
    return HostOutcome(
        changed=changed,
        message=message,
        reason="guests run here" if acted else "no guest that is meant runs here",
        guests=tuple(results),
        plan=sight.plan.as_dict(),
        journal=sight.journal.as_dict() if sight.journal is not None else None,
        warnings=(*_warnings(sight.plan), *_errors(results)),
        duration_seconds=time.monotonic() - began,
    )


def _errors(results: t.Iterable[GuestResult]) -> list[str]:
    return [f"{result.name}: {result.error}" for result in results if result.error]


def _warnings(plan: HostPlan) -> tuple[str, ...]:
    """Of the single saves; those about space are the host's own to tell."""
    return tuple(
        f"{one.guest.name}: {warning}"
        for one in plan.guests
        if one.seen.save is not None and one.action == SAVE
        for warning in one.seen.save.warnings
        if not warning.startswith(("The store has", "libvirt's store has"))
    )


def _units(tier: t.Sequence[GuestPlan]) -> list[list[GuestPlan]]:
    """Guests of a tier, those of one group together, in order."""
    units: dict[str, list[GuestPlan]] = {}
    for plan in tier:
        group = plan.seen.wish.group
        units.setdefault(f"group {group}" if group else plan.key, []).append(plan)
    return list(units.values())


class _Suspend:
    def __init__(
        self, request: SuspendRequest, sight: Sight, writer: JournalWriter, began: float
    ) -> None:
        self._request = request
        self._began = began
        self._plan = sight.plan
        self._gone = sight.gone
        self._run = Run(writer, sight.plan.limits, began)
        keys = [plan.key for plan in sight.plan.guests] + [gone.entry.key for gone in sight.gone]
        self._run.results.update(zip(keys, _results(sight)))

    async def execute(self) -> HostOutcome:
        window = self._request.window_seconds
        failed = interrupted = False
        try:
            await self._note_plan()
            await self._disable_competing()
            for gone in self._gone:
                await gone.finish(self._run)
            failed = await self._save_all(self._began + window if window is not None else None)
        except asyncio.CancelledError:
            interrupted = True
        except VmfleetError as exc:
            self._run.host_error = words_of(exc)
        if failed and self._request.on_failure == ROLLBACK:
            try:
                await finished_first(self._roll_back())
            except VmfleetError as exc:
                self._run.host_error = words_of(exc)
        interrupted = await self._run.aside_done(interrupted=interrupted)
        return self._outcome(interrupted=interrupted)

    async def _note_plan(self) -> None:
        """Every guest that something is to be done to, before anything is."""
        writer = self._run.writer
        plans = [plan for tier in self._plan.tiers() for plan in tier]
        known = {entry.key for entry in writer.journal.entries}
        await writer.add([entry_of(plan) for plan in plans if plan.key not in known])
        for plan in plans:
            if plan.key in known:
                changes = replanned(writer.journal.entry(plan.key), entry_of(plan))
                await writer.set(plan.key, "planned", **changes)
        if self._request.hold_until is not None:
            await writer.note(hold_until=self._request.hold_until, released=False)

    async def _disable_competing(self) -> None:
        run = self._run
        if self._request.competing != DISABLE:
            return
        for starter in self._plan.competing:
            if not (starter.blocks and starter.can_disable and self._plan.concerns(starter)):
                continue
            record = plan_disable(starter)
            known = run.writer.journal.competing
            if record not in known:
                # In the journal first: who comes after a crash knows what to switch on again.
                await run.writer.note(competing=(*known, record))
            await finished_first(apply_disable(record))
            run.actions.append(f"kept {starter.name} from interfering until the guests are back")

    async def _save_all(self, window_ends: float | None) -> bool:
        """Tier by tier; True when a guest failed."""
        failed = False
        with Space(self._plan, self._run.warnings) as space:
            saving = Saving(self._request, self._run, space, window_ends)
            watch = asyncio.ensure_future(space.watch())
            try:
                for tier in self._plan.tiers():
                    if failed and self._request.on_failure == ROLLBACK:
                        break
                    done = await all_of([saving.unit(unit) for unit in _units(tier)])
                    failed = failed or not all(done)
            finally:
                watch.cancel()
        return failed

    async def _roll_back(self) -> None:
        """Every guest that was saved comes back, in the opposite order; those that an earlier run
        had saved, too."""
        run, journal = self._run, self._run.writer.journal
        saved = [one for one in journal.entries if one.key in run.results and one.state in SAVED]
        returning = [Awaited(as_before(entry), RESTORE, "rolled back") for entry in saved]
        for tier in make_resume_plan(returning, self._plan.limits).units():
            await all_of(
                [bring_back(run, [one.returning for one in together]) for together in tier]
            )
        waiting = [entry for entry in run.writer.journal.entries if waits(entry)]
        back = {entry.key for entry in saved}.difference(entry.key for entry in waiting)
        run.actions.append(f"rolled back: restored {len(back)} of {len(saved)} saved guests")
        if waiting:
            return
        done, failure = await put_all_back(run.writer.journal.competing)
        run.actions += done
        if failure is not None:
            raise failure
        await run.writer.note(closed="rolled back")

    def _outcome(self, *, interrupted: bool) -> HostOutcome:
        run, journal = self._run, self._run.writer.journal
        results = tuple(run.results.values())
        saved = [one for one in results if one.state in ("saved", "verified")]
        outcome = HostOutcome(
            changed=any(one.changed for one in results) or bool(run.actions),
            message=f"Suspended {len(saved)} guests of this host.",
            reason="guests ran here",
            guests=results,
            plan=self._plan.as_dict(),
            journal=journal.as_dict(),
            actions=tuple(run.actions),
            warnings=(*_warnings(self._plan), *run.warnings),
            duration_seconds=time.monotonic() - self._began,
        )
        if interrupted or run.errors:
            raise HostFailed(
                ("The run was interrupted by a signal. " if interrupted else "")
                + f"{len(saved)} of {len(results)} guests are suspended. "
                + " ".join(run.errors)
                + " Run this again to go on where it stands; the journal is "
                + f"{run.writer.path}.",
                **{key: value for key, value in outcome.as_result().items() if key != "msg"},
            )
        return outcome
