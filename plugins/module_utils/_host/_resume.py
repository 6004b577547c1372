# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a resume: every guest of the open journal runs again."""

from __future__ import annotations

import asyncio
import os
import time
import typing as t

from .._errors import MonitorError, VmfleetError
from .._failure import words_of
from .._uninterrupted import finished_first, uninterrupted
from ._bring_back import bring_back
from ._competing_off import put_all_back
from ._gone import lost_words, store_is_there
from ._journal import Entry, Journal
from ._journal_file import (
    Journals,
    JournalWriter,
    open_journal,
    read_journals,
    refuse_beside_another,
)
from ._look import AT_ONCE
from ._outcome import GuestResult, HostFailed, HostOutcome
from ._plan import choose_limits
from ._requests import ResumeRequest
from ._resume_look import finish, look_at_entry
from ._resume_plan import (
    CONTINUE,
    FINISH,
    LOST,
    NOTHING,
    OVER,
    REFUSED,
    RESTORE,
    Awaited,
    ResumePlan,
    is_over,
    make_resume_plan,
)
from ._run import Run
from ._together import all_of, at_most, make_room
from ._vcpus import go_on
from ._wishes import selected


async def resume(request: ResumeRequest, *, check_mode: bool) -> HostOutcome:
    """Bring back what the open journal of the store tells of, or find that all is back.

    Raises `Refused` before anything was touched, and `HostFailed` with what became of each guest
    afterwards; a guest that cannot be brought back holds up nobody but those that need it in its
    group.
    """
    began = time.monotonic()
    refuse_beside_another(request.journal)
    journals = read_journals(request.journal)
    journal = open_journal(journals, request.store)
    if journal is None:
        return _nothing_open(request, journals, began)
    chosen = [
        entry
        for entry in journal.entries
        if selected(entry.name, entry.uuid, request.include, request.exclude)
    ]
    make_room(len(chosen))
    limits = choose_limits(request.max_concurrent, len(os.sched_getaffinity(0)))
    there = store_is_there(journal)
    awaited = await at_most(AT_ONCE, [look_at_entry(request, entry, there) for entry in chosen])
    plan = make_resume_plan(awaited, limits)
    changes = any(one.acts or one.entry.state not in OVER for one in awaited) or is_over(
        journal.entries
    )
    if check_mode or not changes:
        return _foreseen(plan, journal, began, changes=changes, check_mode=check_mode)
    writer = JournalWriter.resume(request.journal, journal)
    try:
        whole = not request.include and not request.exclude
        return await _Resume(plan, writer, began, whole=whole).execute()
    finally:
        await uninterrupted(writer.close())


def _result(one: Awaited, *, check_mode: bool) -> GuestResult:
    entry, acts = one.entry, check_mode and one.acts
    lost = one.action == LOST
    image: dict[str, t.Any] = {}
    if one.single is not None:
        single = one.single.as_result()
        image = single["image"] if acts else single["diff"]["before"]["image"] or {}
    return GuestResult(
        entry.name,
        entry.uuid,
        entry.source,
        one.action,
        one.reason,
        state="running" if acts else "crashed" if lost else entry.state,
        guest_state_before=one.guest_state,
        guest_state="running" if acts else one.guest_state,
        changed=acts,
        error=_error(one),
        stale_image=one.stale_image or entry.stale_image,
        image_before=one.single.as_result()["diff"]["before"]["image"] if one.single else None,
        image=dict(image),
        bytes=entry.bytes,
    )


def _error(one: Awaited) -> str | None:
    if one.action == REFUSED:
        return one.reason
    if one.action == LOST or one.entry.state == "crashed":
        return lost_words(one.reason, one.stale_image or one.entry.stale_image)
    return None


def _foreseen(
    plan: ResumePlan, journal: Journal, began: float, *, changes: bool, check_mode: bool
) -> HostOutcome:
    results = tuple(_result(one, check_mode=check_mode) for one in plan.guests)
    count = sum(one.acts for one in plan.guests)
    fail = [result.name for result in results if result.error]
    return HostOutcome(
        changed=changes,
        message=f"Would resume {count} guests of this host"
        + (f", and could not bring back {', '.join(fail)}." if fail else ".")
        if changes
        else "Every guest that is meant is back, or cannot be.",
        reason=f"the suspend {journal.id} is not resumed yet",
        guests=results,
        plan=plan.as_dict(),
        journal=journal.as_dict(),
        warnings=tuple(f"{result.name}: {result.error}" for result in results if result.error),
        duration_seconds=time.monotonic() - began,
    )


def _nothing_open(request: ResumeRequest, journals: Journals, began: float) -> HostOutcome:
    closed = [one for one in journals.journals if one.store == request.store and one.closed]
    last = closed[0] if closed else None
    return HostOutcome(
        changed=False,
        message=f"There is nothing to resume: the suspend {last.id} was {last.closed}."
        if last is not None
        else f"There is nothing to resume: no journal in {request.journal} tells of a suspend into "
        f"{request.store}.",
        reason="no journal is open",
        guests=(),
        plan={"guests": []},
        journal=last.as_dict() if last is not None else None,
        warnings=tuple(f"{path}: {reason}" for path, reason in journals.unreadable),
        duration_seconds=time.monotonic() - began,
    )


class _Resume:
    """``whole``: all guests are meant, so that nothing is held back until later."""

    def __init__(
        self, plan: ResumePlan, writer: JournalWriter, began: float, *, whole: bool
    ) -> None:
        self._plan = plan
        self._began = began
        self._whole = whole
        self._run = Run(writer, plan.limits, began)
        for one in plan.guests:
            self._run.results[one.entry.key] = _result(one, check_mode=False)

    async def execute(self) -> HostOutcome:
        run, interrupted = self._run, False
        try:
            if self._whole and not run.writer.journal.released:
                await run.writer.note(released=True)
            await all_of([self._settle(one) for one in self._plan.guests if not one.acts])
            for tier in self._plan.units():
                await all_of([self._unit(unit) for unit in tier])
            await self._close()
        except asyncio.CancelledError:
            interrupted = True
        except VmfleetError as exc:
            run.host_error = words_of(exc)
        interrupted = await run.aside_done(interrupted=interrupted)
        return self._outcome(interrupted=interrupted)

    async def _settle(self, one: Awaited) -> None:
        """The journal of a guest for which there is nothing to do."""
        entry = one.entry
        if one.action == LOST:
            await self._run.writer.set(
                entry.key, "crashed", reason=one.reason, stale_image=one.stale_image
            )
        elif one.action == NOTHING and entry.state not in OVER:
            await self._run.writer.set(entry.key, "running", reason=None)
            self._run.results[entry.key].state = "running"

    async def _unit(self, unit: t.Sequence[Awaited]) -> None:
        stopped = [one for one in unit if one.action == CONTINUE]
        waiting = [one for one in unit if one not in stopped]
        ready = [one for one in waiting if await self._prepared(one)]
        if ready:
            group = ready[0].entry.group
            refused = [
                one
                for one in self._plan.guests
                if group is not None and one.entry.group == group and one.action == REFUSED
            ]
            unready = [one for one in waiting if one not in ready]
            missing = [one.entry.name for one in (*refused, *unready)]
            await bring_back(self._run, [one.returning for one in ready], missing)
        await all_of([self._prepared(one) for one in stopped])

    async def _prepared(self, one: Awaited) -> bool:
        """True when there is an image to be restored."""
        run, entry = self._run, one.entry
        result = run.results[entry.key]
        if one.action == RESTORE:
            return True
        try:
            if one.action == FINISH:
                await finish(self._request_of(entry), entry, check_mode=False)
                await run.writer.set(entry.key, "saved", reason=None)
                return True
            await go_on(entry.source)
            result.guest_state, result.changed, result.state = "running", True, "running"
            await run.writer.set(entry.key, "running", reason=None, held=False)
        except (MonitorError, VmfleetError, OSError) as exc:
            result.error = words_of(exc)
        return False

    def _request_of(self, entry: Entry) -> ResumeRequest:
        return ResumeRequest(store=os.path.dirname(entry.path), journal="")

    async def _close(self) -> None:
        run = self._run
        if not is_over(run.writer.journal.entries):
            return
        done, failure = await finished_first(put_all_back(run.writer.journal.competing))
        run.actions += done
        if failure is not None:
            raise failure
        await finished_first(run.writer.note(closed="resumed"))

    def _outcome(self, *, interrupted: bool) -> HostOutcome:
        run, journal = self._run, self._run.writer.journal
        results = tuple(run.results.values())
        back = [one for one in results if one.state == "running"]
        outcome = HostOutcome(
            changed=True,
            message=f"Resumed {len(back)} guests of this host.",
            reason=f"the suspend {journal.id} was not resumed yet",
            guests=results,
            plan=self._plan.as_dict(),
            journal=journal.as_dict(),
            actions=tuple(run.actions),
            warnings=tuple(run.warnings),
            duration_seconds=time.monotonic() - self._began,
        )
        if interrupted or run.errors:
            raise HostFailed(
                ("The run was interrupted by a signal. " if interrupted else "")
                + f"{len(back)} of {len(results)} guests run again. "
                + " ".join(run.errors)
                + f" The journal is {run.writer.path}; run this again to go on where it stands.",
                **{key: value for key, value in outcome.as_result().items() if key != "msg"},
            )
        return outcome
