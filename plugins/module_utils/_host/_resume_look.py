# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What has become of a guest of a journal, and what a resume does about it. Nothing is changed by
looking."""

from __future__ import annotations

from dataclasses import replace

from .._errors import Refused, VmfleetError
from .._failure import words_of
from .._save._outcome import SaveOutcome
from ._bring_back import Returning, guest_of
from ._gone import ENDED_SINCE, ENDED_UNSAVED, image_at, is_gone, is_older, lives_unseen
from ._journal import Entry
from ._requests import MANAGED, ResumeRequest, SuspendRequest, save_request
from ._resume_plan import (
    BEGUN,
    CONTINUE,
    FINISH,
    LOST,
    NOTHING,
    OVER,
    REFUSED,
    RESTORE,
    Awaited,
)
from ._single import restore_one, save_one
from ._vcpus import run_state


async def look_at_entry(request: ResumeRequest, entry: Entry, store_there: bool) -> Awaited:
    """What is to be done for one guest, from its journal entry and its own restore's plan."""
    wish = request.wishes.of(guest_of(entry))
    returning = Returning(entry, wish, request.defaults, request.sync_clock)
    if entry.state in OVER:
        return Awaited(returning, NOTHING, entry.reason or f"it is {entry.state}", "")
    if entry.state in BEGUN:
        begun = await _look_at_begun(request, returning, store_there)
        if begun is not None:
            return begun
    try:
        outcome = await restore_one(returning.request(returning.alone), check_mode=True)
    except (VmfleetError, OSError) as exc:
        return await _look_without_image(returning, exc)
    action = RESTORE if outcome.changed else NOTHING
    return Awaited(returning, action, outcome.plan.reason, outcome.state_before, outcome)


async def _look_without_image(returning: Returning, refusal: Exception) -> Awaited:
    """A guest that its own restore refuses: it may be back all the same, its image used up."""
    entry = returning.entry
    image = image_at(entry.path)
    if image is None or image.state == "spent":
        state = await run_state(entry.source, entry.uuid)
        if state == "running":
            return Awaited(returning, NOTHING, "it runs, and its image is used up", state)
        if state is None and image is not None:
            return Awaited(returning, NOTHING, ENDED_SINCE)
    facts = refusal.facts if isinstance(refusal, VmfleetError) else {}
    found = str(facts.get("guest", {}).get("state", "absent"))
    return Awaited(returning, REFUSED, words_of(refusal), found)


async def _look_at_begun(
    request: ResumeRequest, returning: Returning, store_there: bool
) -> Awaited | None:
    """A guest whose save was begun and not noted as done; None when its image is whole."""
    entry = returning.entry
    try:
        outcome = await finish(request, entry, check_mode=True)
    except Refused as exc:
        state = str(exc.facts.get("guest", {}).get("state", "unknown"))
        if state == "running":
            return Awaited(returning, NOTHING, "the suspend did not come to it", state)
        if is_gone(exc) and store_there:
            return _ended(returning, words_of(exc), state)
        return Awaited(returning, REFUSED, words_of(exc), state)
    except (VmfleetError, OSError) as exc:
        return Awaited(returning, REFUSED, words_of(exc), "unknown")
    if outcome.plan is None:
        if lives_unseen(entry) or is_older(entry, image_at(entry.path), outcome):
            return _ended(returning, ENDED_UNSAVED, "absent")
        return Awaited(returning, FINISH, outcome.reason) if outcome.changed else None
    if outcome.plan.recovers is not None:
        why = "a run that died was saving it. Run the suspend again, which finishes or undoes that"
        return Awaited(returning, REFUSED, why, outcome.state_before)
    if entry.held and entry.was_running and outcome.state_before == "paused":
        why = "its group was stopped for a suspend that did not come to it"
        return Awaited(returning, CONTINUE, why, "paused")
    return Awaited(returning, NOTHING, "the suspend did not come to it", outcome.state_before)


def _ended(returning: Returning, why: str, state: str) -> Awaited:
    """A guest that nobody finds and that was not saved: lost, unless its QEMU lives."""
    entry = returning.entry
    unseen = lives_unseen(entry)
    if unseen is not None:
        return Awaited(returning, REFUSED, unseen, "unknown")
    older = image_at(entry.path)
    return Awaited(returning, LOST, why, state, stale_image=older.path if older else None)


async def finish(request: ResumeRequest, entry: Entry, *, check_mode: bool) -> SaveOutcome:
    """Publish what the save of a run that died left, where it is whole."""
    options = {MANAGED: True} if entry.options.get(MANAGED) else {"path": entry.path}
    suspend = SuspendRequest(store=request.store, journal=request.journal)
    wish = replace(request.wishes.of(guest_of(entry)), save=options)
    return await save_one(save_request(suspend, guest_of(entry), wish), check_mode=check_mode)
