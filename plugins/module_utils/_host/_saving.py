# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Saving one guest of a host, or the members of one group."""

from __future__ import annotations

import asyncio
import time
import typing as t
from dataclasses import replace

from .._errors import Refused, VmfleetError
from .._failure import words_of
from .._save._outcome import SaveOutcome
from .._uninterrupted import uninterrupted
from ._bring_back import PAUSED, RUNNING, as_before, bring_back
from ._gone import ENDED_UNSAVED, lost_words
from ._journal import Entry
from ._plan import GuestPlan
from ._requests import ROLLBACK, SuspendRequest, save_request
from ._run import Run
from ._single import save_one
from ._space import Space
from ._together import Once, all_of
from ._vcpus import go_on, pause, shut_down
from ._wishes import LEAVE, SAVE, SHUTDOWN

_SHUTDOWN_SECONDS = 180.0
CRASHED = "crashed"
# A guest's state after a save that failed: nobody holds it any more; or nobody but an image that is
# not published, which the next run looks at again.
_NOBODY = (CRASHED, "absent")
_UNPUBLISHED = "stopped"


class Saving:
    """``window_ends``: monotonic time, None without a window."""

    def __init__(
        self, request: SuspendRequest, run: Run, space: Space, window_ends: float | None
    ) -> None:
        self._request = request
        self._run = run
        self._space = space
        self._window_ends = window_ends
        self._failed = False

    async def unit(self, plans: t.Sequence[GuestPlan]) -> bool:
        """Save them; True when what was planned is done."""
        if len(plans) == 1:
            # A task of its own, as members have, so that all ask for their places in order.
            return all(await all_of([self._one(plans[0])]))
        try:
            return await self._group(plans)
        except (asyncio.CancelledError, VmfleetError):
            await uninterrupted(self._group_back(plans))
            raise

    async def _group(self, plans: t.Sequence[GuestPlan]) -> bool:
        """All members stand still before the first of them is saved, and not before its turn has
        come; together or not at all."""
        saves = [plan for plan in plans if plan.action == SAVE]
        others = [plan for plan in plans if plan.action != SAVE]
        stopped = Once(lambda: self._hold_all(saves))
        try:
            done = all(await all_of([self._one(plan, stopped) for plan in saves]))
        finally:
            await uninterrupted(stopped.over())
        if done:
            return all(await all_of([self._one(plan) for plan in others]))
        await uninterrupted(self._group_back(saves))
        await all_of([self._give_up(plan, "its group was not saved") for plan in others])
        return False

    async def _hold_all(self, plans: t.Iterable[GuestPlan]) -> bool:
        return all(await all_of([self._hold(plan) for plan in plans]))

    async def _hold(self, plan: GuestPlan) -> bool:
        result = self._run.results[plan.key]
        try:
            # Before the act, so that who finds it paused knows whose doing that is.
            await self._run.writer.set(plan.key, "planned", held=True)
            if await pause(plan.guest.source):
                result.actions += ("stopped its vCPUs with those of its group",)
            return True
        except VmfleetError as exc:
            self._failed = True
            result.error = words_of(exc)
            await self._run.writer.set(plan.key, "failed", reason=result.error)
            return False

    async def _let_go_on(self, plans: t.Iterable[GuestPlan]) -> None:
        """Members that we hold and that are not saved run again, if they ran: each of them, also
        where the journal cannot be written."""
        await all_of([self._let_one_go_on(plan) for plan in plans])

    async def _let_one_go_on(self, plan: GuestPlan) -> None:
        entry = self._run.writer.journal.entry(plan.key)
        if not (entry.held and entry.was_running) or entry.state in ("saved", "verified"):
            return
        result = self._run.results[plan.key]
        state = entry.state
        try:
            if await go_on(plan.guest.source):
                state = result.state = "failed" if state == "saving" else state
                result.guest_state = RUNNING
                result.actions += ("continued it with its group",)
        except VmfleetError as exc:
            result.error = f"{result.error or ''} It was not continued: {words_of(exc)}".strip()
            if entry.state == "failed":
                result.state = "planned"  # not over: the next run continues it
                await self._run.writer.set(plan.key, "planned", reason=result.error)
        else:
            await self._run.writer.set(plan.key, state, held=False)

    async def _group_back(self, plans: t.Sequence[GuestPlan]) -> None:
        """Members that were saved are brought back, and all run as they did."""
        journal = self._run.writer.journal
        saved = [p for p in plans if journal.entry(p.key).state in ("saved", "verified")]
        others = [plan for plan in plans if plan not in saved]
        missing = ", ".join(plan.guest.name for plan in others)
        try:
            if saved:
                await bring_back(self._run, [as_before(journal.entry(p.key)) for p in saved])
            for plan in saved:
                result = self._run.results[plan.key]
                result.error = result.error or (
                    f"it was saved and brought back, as {missing} of its group was not saved"
                )
                if result.state == "running":
                    result.state = "failed"
                    await self._run.writer.set(plan.key, "failed", reason=result.error)
        finally:
            await self._let_go_on(others)

    async def _one(self, plan: GuestPlan, stopped: Once[bool] | None = None) -> bool:
        """``stopped``: has the vCPUs of its group stopped; False where that failed."""
        if plan.action == SHUTDOWN and not self._rolls_back:
            return await self._shut_down(plan)
        async with self._run.room(plan.seen.device):
            if self._rolls_back:
                return await self._give_up(plan, "another guest failed, and all are rolled back")
            # Before anybody may be given up, who has to run on then.
            if stopped is not None and not await stopped.done():
                return False
            late = self._late(plan)
            if late is None:
                return await self._save(plan)
        policy = plan.seen.wish.policy
        if policy == SHUTDOWN:
            return await self._shut_down(plan)
        return await self._give_up(plan, late, left=policy == LEAVE)

    @property
    def _rolls_back(self) -> bool:
        return self._failed and self._request.on_failure == ROLLBACK

    def _late(self, plan: GuestPlan) -> str | None:
        """Why the window has no room for a save that has not begun; None when it has."""
        if self._window_ends is None or plan.seen.wish.policy == SAVE:
            return None
        left = self._window_ends - time.monotonic()
        if left <= 0 or left < (plan.predicted_seconds or 0.0):
            return f"{max(left, 0):.1f} s of the window were left when its turn came"
        return None

    async def _give_up(self, plan: GuestPlan, why: str, *, left: bool = False) -> bool:
        await self._let_go_on([plan])
        result = self._run.results[plan.key]
        result.action, result.reason = (LEAVE if left else result.action), why
        result.state = "left" if left else "failed"
        if not left:
            result.error = f"it was not begun: {why}; it runs on"
        await self._run.writer.set(plan.key, result.state, reason=why)
        return left

    async def _save(self, plan: GuestPlan) -> bool:
        run, key = self._run, plan.key
        await run.writer.set(key, "saving")
        began = run.begin(key)
        self._space.begin(key)
        try:
            outcome = await save_one(self._single(plan), check_mode=False)
            _refuse_older(run.writer.journal.entry(key), plan, outcome)
        except (VmfleetError, OSError) as exc:
            await uninterrupted(self._note_failure(plan, exc))
            return False
        except asyncio.CancelledError:
            await uninterrupted(run.writer.set(key, "planned"))
            raise
        finally:
            self._space.done(key)
        await uninterrupted(self._note_save(plan, outcome, time.monotonic() - began))
        return True

    def _single(self, plan: GuestPlan) -> t.Any:
        single = save_request(self._request, plan.guest, plan.seen.wish, plan.channels)
        if self._window_ends is None or plan.seen.wish.policy == SAVE:
            return single
        left = max(0.1, self._window_ends - time.monotonic())
        asked = single.timeout_seconds
        return replace(single, timeout_seconds=min(asked, left) if asked else left)

    async def _note_save(self, plan: GuestPlan, outcome: SaveOutcome, seconds: float) -> None:
        result, single = self._run.results[plan.key], outcome.as_result()
        result.guest_state = single["guest"]["state"]
        result.changed = outcome.changed
        result.image, result.image_before = single["image"], single["diff"]["before"]["image"]
        result.bytes = single["image"].get("allocated_bytes")
        result.actual_seconds = seconds
        result.stopped_seconds = outcome.stopped_seconds or None
        result.actions += outcome.actions
        result.state = "verified" if outcome.verified is not None else "saved"
        self._run.warnings += [
            f"{plan.guest.name}: {warning}"
            for warning in outcome.warnings
            if plan.seen.save is not None and warning not in plan.seen.save.warnings
        ]
        for state in ("saved", "verified")[: 2 if result.state == "verified" else 1]:
            await self._run.writer.set(
                plan.key,
                state,
                path=single["image"]["path"],
                bytes=result.bytes,
                actual_seconds=seconds,
                reason=None,
            )

    async def _note_failure(self, plan: GuestPlan, exc: Exception) -> None:
        self._failed = True
        result = self._run.results[plan.key]
        facts = exc.facts if isinstance(exc, VmfleetError) else {}
        result.error = reason = words_of(exc)
        result.guest_state = facts.get("guest", {}).get("state", "unknown")
        result.changed = bool(facts.get("changed"))
        lost = result.guest_state in _NOBODY
        older = plan.seen.save.replaces if plan.seen.save is not None else None
        result.state = CRASHED if lost else "failed"
        changes: dict[str, t.Any] = {}
        ran = plan.seen.save is not None and plan.seen.save.was_running
        if result.guest_state == _UNPUBLISHED or (
            ran and not lost and result.guest_state != RUNNING
        ):
            result.state = "saving"
            # By nobody's hand but ours: the next run continues it.
            changes = {"held": True} if result.guest_state == PAUSED else {}
        if lost and older is not None:
            result.stale_image = older.path
            result.error += f" {older.path} is an older image of it, and stale."
        await self._run.writer.set(
            plan.key, result.state, reason=reason, stale_image=result.stale_image, **changes
        )

    async def _shut_down(self, plan: GuestPlan) -> bool:
        result = self._run.results[plan.key]
        result.action = SHUTDOWN
        await self._let_go_on([plan])  # who is held does not hear its power button
        seconds = _SHUTDOWN_SECONDS
        if self._window_ends is not None:
            seconds = max(1.0, min(seconds, self._window_ends - time.monotonic()))
        try:
            await shut_down(plan.guest.source, seconds)
        except VmfleetError as exc:
            self._failed = True
            result.error, result.state = words_of(exc), "failed"
            await uninterrupted(self._run.writer.set(plan.key, "failed", reason=result.error))
            return False
        result.state, result.guest_state, result.changed = "shutdown", "absent", True
        result.actions += ("shut it down",)
        await uninterrupted(self._run.writer.set(plan.key, "shutdown", reason=plan.reason))
        return True


def _refuse_older(entry: Entry, plan: GuestPlan, outcome: SaveOutcome) -> None:
    """Raise `Refused` where nothing was saved, and what is taken for its image was there when the
    guest still ran."""
    older = plan.seen.save.replaces if plan.seen.save is not None else None
    if older is None or outcome.plan is not None:
        return
    found = outcome.image_after or older
    if None not in (entry.process, found.saved_from):
        stale = entry.process not in (found.saved_from, found.loaded_into)
    else:  # libvirt's, which tells of no process
        stale = not outcome.changed and outcome.image_before == older
    if stale:
        raise Refused(lost_words(ENDED_UNSAVED, None), guest={"state": "absent"})
