# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Bringing saved guests back: one by itself, or a group that runs together."""

from __future__ import annotations

import asyncio
import os
import time
import typing as t
from dataclasses import replace

from .._errors import VmfleetError
from .._failure import words_of
from .._restore._afterwards import wanted_of, with_presence
from .._restore._outcome import RestoreOutcome
from .._uninterrupted import uninterrupted
from ._guests import HostGuest
from ._journal import Entry
from ._outcome import GuestResult
from ._requests import MANAGED, AnyRestore, restore_request
from ._run import Run
from ._single import restore_one
from ._together import all_of
from ._wishes import Wish

RUNNING, PAUSED = "running", "paused"
_RUN_STATE = "run_state"


def guest_of(entry: Entry, state: str = "absent") -> HostGuest:
    """A guest as the journal knows it."""
    return HostGuest(entry.name, entry.uuid, entry.source, state, None, None, None, None)


class Returning(t.NamedTuple):
    """A guest on its way back. ``options``: what is asked for every guest; ``sync_clock``: whether
    its clock is set once it runs."""

    entry: Entry
    wish: Wish
    options: t.Mapping[str, t.Any]
    sync_clock: bool = True

    @property
    def wanted(self) -> dict[str, t.Any]:
        """Options of its single restore: as the suspend was told, unless the resume is told."""
        told = {key: value for key, value in self.entry.options.items() if key != MANAGED}
        return {**told, **self.wish.restore}

    def request(self, run_state: str | None) -> AnyRestore:
        """Its single restore; ``run_state``: what the host decides, but for one that is to stay
        paused. Raises `Refused`."""
        wanted = self.wanted
        return restore_request(
            guest_of(self.entry),
            self.entry.path,
            self.options,
            Wish(self.wish.name, restore=wanted),
            managed=bool(self.entry.options.get(MANAGED)),
            run_state=PAUSED if wanted.get(_RUN_STATE) == PAUSED else run_state,
        )

    @property
    def runs(self) -> bool:
        """Whether its vCPUs shall run in the end, as far as it is for the host to say."""
        asked = self.wanted.get(_RUN_STATE)
        return asked == RUNNING or (self.entry.was_running is True and asked != PAUSED)

    @property
    def alone(self) -> str | None:
        """How it is to come back without its group: its image was taken while we held it."""
        return RUNNING if self.entry.held and self.runs else None


def as_before(entry: Entry) -> Returning:
    """A guest whose suspend is taken back: whatever was asked for its resume, it runs if it ran."""
    options = {key: value for key, value in entry.options.items() if key != _RUN_STATE}
    return Returning(replace(entry, options=options), Wish(entry.name), {})


async def bring_back(run: Run, unit: t.Sequence[Returning], missing: t.Sequence[str] = ()) -> bool:
    """Bring back one guest or the members of one group; True when all are back.

    Members are all restored before the first of them runs; where one cannot be, or is among those
    ``missing``, the others stay paused, and the next run goes on there.
    """
    if len(unit) == 1 and not missing:
        # A task of its own, as members have, so that all ask for their places in order.
        return all(await all_of([_restore(run, unit[0], unit[0].alone)]))
    loaded = await all_of([_restore(run, one, PAUSED) for one in unit])
    gone = [*missing, *(one.entry.name for one, done in zip(unit, loaded) if not done)]
    if gone:
        for one, done in zip(unit, loaded):
            if done and one.runs:
                result = run.results[one.entry.key]
                result.error = (
                    f"it is restored and held paused, as {', '.join(gone)} of its group is not "
                    "back. Run this again when that can be restored; or continue it by hand."
                )
                await run.writer.set(one.entry.key, "restoring", reason=result.error)
        return False
    # They are loaded: nobody waits for a place any more.
    return all(await all_of([_run_now(run, one) for one in unit if one.runs]))


async def _restore(run: Run, one: Returning, run_state: str | None) -> bool:
    async with run.room(_device(one.entry.path)):
        outcome = await _restored(run, one, run_state)
    return await _is_back(run, one, run_state, outcome)


async def _run_now(run: Run, one: Returning) -> bool:
    return await _is_back(run, one, RUNNING, await _restored(run, one, RUNNING))


async def _restored(run: Run, one: Returning, run_state: str | None) -> RestoreOutcome | None:
    """The restore alone; None, and noted, where it failed."""
    entry, result = one.entry, run.results[one.entry.key]
    began = run.begin(entry.key)
    walked = run.writer.journal.entry(entry.key).state != "saved"
    whole = "verified" if walked else "saved"
    await run.writer.set(entry.key, "restoring")
    try:
        outcome = await restore_one(one.request(run_state), check_mode=False)
    except (VmfleetError, OSError) as exc:
        await uninterrupted(_failed(run, one, exc, whole))
        return None
    except asyncio.CancelledError:
        await uninterrupted(run.writer.set(entry.key, whole))
        raise
    note(result, outcome, time.monotonic() - began)
    return outcome


async def _is_back(
    run: Run, one: Returning, run_state: str | None, outcome: RestoreOutcome | None
) -> bool:
    """The journal and what comes after a restore; False where it failed."""
    if outcome is None:
        return False
    entry, result = one.entry, run.results[one.entry.key]
    if run_state != PAUSED or not one.runs:
        await uninterrupted(run.writer.set(entry.key, "running", reason=None))
        result.state = "running"
        run.aside(_look_after(run, one, outcome))
    else:
        result.state = "restoring"
    return True


async def _look_after(run: Run, one: Returning, outcome: RestoreOutcome) -> None:
    """Once the guest runs: clock, network, readiness."""
    source, result = one.entry.source, run.results[one.entry.key]
    wanted = wanted_of(one.sync_clock, one.wish.ready_check)
    seen = await with_presence(outcome, wanted, uri=source.uri, domain=source.domain)
    if seen.presence is not None:
        told = seen.presence.as_dict()
        result.clock, result.ready = told["clock"], told.get("ready")
        run.warnings += [f"{result.name}: {warning}" for warning in seen.presence.warnings]


def note(result: GuestResult, outcome: RestoreOutcome, seconds: float) -> None:
    """What a restore returned, into the result of the guest."""
    single = outcome.as_result()
    result.reason = single["reason"]
    result.guest_state = single["guest"]["state"]
    result.changed = result.changed or outcome.changed
    result.image = single["image"]
    result.image_before = result.image_before or single["diff"]["before"]["image"]
    result.actual_seconds = (result.actual_seconds or 0.0) + seconds
    result.actions += outcome.actions


async def _failed(run: Run, one: Returning, exc: Exception, whole: str) -> None:
    """``whole``: the state of its image before."""
    result = run.results[one.entry.key]
    result.error = words_of(exc)
    facts = exc.facts if isinstance(exc, VmfleetError) else {}
    result.guest_state = facts.get("guest", {}).get("state", result.guest_state)
    result.changed = result.changed or bool(facts.get("changed"))
    # Whole as it was, or for the next run to find out.
    result.state = "restoring" if facts.get("changed") else whole
    await run.writer.set(one.entry.key, result.state, reason=result.error)


def _device(path: str) -> int:
    try:
        return os.stat(os.path.dirname(path)).st_dev
    except OSError:
        return 0
