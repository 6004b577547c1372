# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Guests of the journal that no QEMU holds any more: saved, to be finished, or lost."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, replace

from .._errors import ImageInvalid, Refused, VmfleetError
from .._failure import words_of
from .._image_record import SavedImage, describe_target
from .._qemu._process import is_alive
from .._save._domain_request import ManagedSaveRequest
from .._save._outcome import SaveOutcome
from .._saveimage._publish import partial_path
from .._uninterrupted import finished_first
from ._bring_back import guest_of
from ._journal import Entry, Journal
from ._look import AT_ONCE
from ._outcome import GuestResult
from ._requests import MANAGED, AnySave, SuspendRequest, save_request
from ._run import Run
from ._single import save_one
from ._together import at_most
from ._wishes import Wish, selected

NOTHING, FINISH, LOST, ENDED = "nothing", "finish", "lost", "ended"
UNREACHABLE, UNKNOWN = "unreachable", "unknown"
ENDED_UNSAVED = "its QEMU has ended, and the image that is there is of an earlier one"
ENDED_SINCE = "its image is spent: somebody brought it back, and it has ended since"
_SAVED = ("saved", "verified", "restoring")
_BEGUN = ("planned", "saving")


@dataclass(frozen=True)
class Gone:
    """``action``: nothing (its image is ready), finish (what a run that died left is published),
    lost (its RAM is nowhere), ended (it was brought back, and has ended by itself), unreachable
    (its QEMU lives, and does not answer), or unknown (its image cannot be seen); ``older``: an
    image of it that is there all the same."""

    entry: Entry
    action: str
    reason: str
    request: AnySave
    older: SavedImage | None = None

    @property
    def changes(self) -> bool:
        """Whether a run would write something."""
        lost_now = self.action == LOST and self.entry.state != "crashed"
        return self.action in (FINISH, ENDED) or lost_now

    @property
    def stale_image(self) -> str | None:
        """The path of what must not be restored."""
        return self.older.path if self.action == LOST and self.older is not None else None

    @property
    def error(self) -> str | None:
        """What the operator has to see to."""
        if self.action == LOST:
            return lost_words(self.reason, self.stale_image)
        return self.reason if self.action in (UNREACHABLE, UNKNOWN) else None

    def result(self) -> GuestResult:
        """As it is before the run does anything."""
        entry = self.entry
        lost, lives = self.action == LOST, self.action in (UNREACHABLE, UNKNOWN)
        return GuestResult(
            entry.name,
            entry.uuid,
            entry.source,
            self.action,
            self.reason,
            state="crashed" if lost else entry.state,
            guest_state_before="unknown" if lives else "absent",
            guest_state="unknown" if lives else "absent",
            error=self.error,
            stale_image=self.stale_image,
            image={"path": entry.path, "state": "ready"}
            if self.action in (NOTHING, FINISH)
            else {},
            bytes=entry.bytes,
            predicted_seconds=entry.predicted_seconds,
            actual_seconds=entry.actual_seconds,
        )

    async def finish(self, run: Run) -> None:
        """Publish, or note the loss."""
        result = run.results[self.entry.key]
        if self.action == LOST and self.changes:
            await finished_first(
                run.writer.set(
                    self.entry.key, "crashed", reason=self.reason, stale_image=self.stale_image
                )
            )
        if self.action == ENDED:
            await finished_first(run.writer.set(self.entry.key, "running", reason=self.reason))
            result.state = "running"
        if self.action != FINISH:
            return
        try:
            outcome = await save_one(self.request, check_mode=False)
        except (VmfleetError, OSError) as exc:
            result.error = words_of(exc)
            return
        await finished_first(run.writer.set(self.entry.key, "saved", reason=None))
        result.state, result.changed = "saved", outcome.changed
        result.actions = outcome.actions


async def look_for_gone(
    request: SuspendRequest, journal: Journal | None, here: t.Collection[str]
) -> tuple[Gone, ...]:
    """Those of the open journal that were not found, as the options select them."""
    if journal is None:
        return ()
    gone = [
        entry
        for entry in journal.entries
        if entry.key not in here
        and entry.state in (*_SAVED, *_BEGUN, "crashed")
        and selected(entry.name, entry.uuid, request.include, request.exclude)
    ]
    there = store_is_there(journal)
    return tuple(await at_most(AT_ONCE, [_look(request, entry, there) for entry in gone]))


def store_is_there(journal: Journal) -> bool:
    """Whether every image that is known to be whole can be seen: where one cannot, its store may
    not be mounted, and nobody is lost for that."""
    saved = [entry for entry in journal.entries if entry.state in ("saved", "verified")]
    return all(os.path.lexists(entry.path) for entry in saved if not entry.options.get(MANAGED))


def is_gone(refusal: Refused) -> bool:
    """Whether a save was refused because nobody is there to be saved, and not for what hides it."""
    guest = refusal.facts.get("guest", {})
    return guest.get("state") in ("absent", "crashed", "shutoff")


async def _look(request: SuspendRequest, entry: Entry, store_there: bool) -> Gone:
    guest = guest_of(entry)
    wish = request.wishes.of(guest)
    if entry.options.get(MANAGED):
        wish = replace(wish, save={**wish.save, MANAGED: True})
    else:
        wish = Wish(wish.name, save={**wish.save, "path": entry.path})
    single = save_request(request, guest, wish)
    older = None
    if not isinstance(single, ManagedSaveRequest):
        older = image_at(entry.path)
    unseen = lives_unseen(entry)
    if unseen is not None:
        return Gone(entry, UNREACHABLE, unseen, single, older)
    if entry.state == "crashed":
        return Gone(entry, LOST, entry.reason or "its QEMU ended", single, older)
    if entry.state in _SAVED and older is not None and older.state == "spent":
        return Gone(entry, ENDED, ENDED_SINCE, single, older)
    try:
        outcome = await save_one(single, check_mode=True)
    except (Refused, ImageInvalid) as exc:
        if (
            entry.state in _SAVED
            or not store_there
            or not (isinstance(exc, Refused) and is_gone(exc))
        ):
            why = f"{words_of(exc)} Is the store of {entry.path} mounted, and the file as it was?"
            return Gone(entry, UNKNOWN, why, single, older)
        return Gone(entry, LOST, words_of(exc), single, older)
    if entry.state in _SAVED and not outcome.changed:
        return Gone(entry, NOTHING, outcome.reason, single)
    if is_older(entry, older, outcome):
        return Gone(entry, LOST, ENDED_UNSAVED, single, older)
    return Gone(entry, FINISH, outcome.reason, single)


def lives_unseen(entry: Entry) -> str | None:
    """Of a guest that was not found: where its QEMU lives all the same; None where it has ended."""
    if entry.process is None or not is_alive(entry.process):
        return None
    return (
        f"its QEMU, process {entry.process.pid}, lives, but was not found by its monitor or "
        "daemon. Make it reachable again, then run this again"
    )


def is_older(entry: Entry, image: SavedImage | None, outcome: SaveOutcome) -> bool:
    """Whether the image that a save found done, or would find, is of a QEMU before the one that was
    to be saved: its guest has run since."""
    finishes = outcome.changed and os.path.lexists(partial_path(entry.path))
    known = image.saved_from if image is not None else None
    return not finishes and None not in (known, entry.process) and known != entry.process


def lost_words(reason: str, stale: str | None) -> str:
    """What the operator is told of a guest that is lost."""
    return (
        f"it ended before it was saved, and its RAM is lost: {reason.rstrip('.')}."
        + (f" {stale} is an older image of it, and stale." if stale is not None else "")
        + " It is neither restored nor booted here; start it anew."
    )


def image_at(path: str) -> SavedImage | None:
    """The image that can be read there; None without one."""
    try:
        return describe_target(path)
    except (VmfleetError, OSError):
        return None
