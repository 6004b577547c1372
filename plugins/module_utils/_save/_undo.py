# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Undoing a save that failed: the guest as it was, nothing half-written left behind."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
from dataclasses import dataclass

from .._errors import VmfleetError
from .._failure import facts_of, words_of
from .._image_record import SPENT_BY, SPENT_BY_FAILURE, UNDOING
from .._saveimage._life import annotate, mark_spent
from ._hold import CRASHED, UNKNOWN
from ._session import SaveSession


class SaveFailed(VmfleetError):
    """A save that had begun failed; the message says what became of guest and image."""


@dataclass(frozen=True)
class Undone:
    """``state``: the guest's now; ``withdrawn``: no image of it can be restored; ``removed``: the
    unfinished file is gone."""

    state: str
    withdrawn: bool
    removed: bool


async def put_back(session: SaveSession) -> Undone:
    """Guest and store as before the save began, as far as they can be.

    The unfinished image goes last, and stays while the guest could not be released: it tells
    another run what to put back.
    """
    withdrawn = _demote_image(session)

    def give_space_back() -> bool:
        # A guest whose disks share the store with a full image must find room to go on.
        with contextlib.suppress(VmfleetError):
            if withdrawn:
                annotate(session.image.fd, session.image.path, {UNDOING: True})
                session.image.release_space(session.data_offset_bytes)
        return withdrawn

    state = await session.release(give_space_back)
    if session.pipeline is not None:
        await session.pipeline.abort()
    removed = withdrawn and state != UNKNOWN and _remove_image(session)
    return Undone(state, withdrawn, removed)


async def undo(session: SaveSession, cause: BaseException) -> t.NoReturn:
    """Put everything back and raise `SaveFailed`; a defect of our own is raised as it is."""
    step = session.step
    undone = await put_back(session)
    if not isinstance(cause, (VmfleetError, OSError, asyncio.CancelledError)):
        raise cause
    plan = session.plan
    raise SaveFailed(
        f"Saving {plan.name} failed while {step}: {words_of(cause)} "
        + advice(undone, plan.run_state_before, session.image.path, session.monitor.path),
        **facts_of(cause),
        step=step,
        guest={"name": plan.name, "uuid": plan.uuid, "state": undone.state},
        actions=list(session.actions),
    ) from cause


def _demote_image(session: SaveSession) -> bool:
    """Make sure that no image of this guest can be restored; False when that failed."""
    if not session.image.committing:
        return True  # the partial magic is on disk since the beginning
    try:
        mark_spent(session.image.fd, session.image.path, {SPENT_BY: SPENT_BY_FAILURE})
    except (VmfleetError, OSError):
        return False
    return True


def _remove_image(session: SaveSession) -> bool:
    """Remove the unfinished file; False when it stays."""
    try:
        session.image.discard()
    except (VmfleetError, OSError):
        return False
    session.actions.append("removed the unfinished image")
    return True


def advice(undone: Undone, before: str, image_path: str, qmp_socket: str) -> str:
    """What state the guest is in now and what the operator does next."""
    if undone.state == CRASHED:
        said = "QEMU itself has ended and the guest's RAM is lost: the guest must be started anew."
    elif not undone.withdrawn:
        return (
            f"The image {image_path} is whole but could not be withdrawn, so the guest was left "
            f"in {undone.state}. Run the save again to finish it. Or go back by hand: remove the "
            "image first, then continue the guest with cont."
        )
    elif undone.state == UNKNOWN:
        return (
            f"The monitor {qmp_socket} does not answer, so the guest's state is unknown. "
            f"{image_path} was kept: once the monitor answers, run the save again, and it puts "
            "the guest back first. By hand: from paused or postmigrate, cont continues it."
        )
    elif undone.state == before:
        said = f"The guest is {undone.state} as before."
    else:
        said = (
            f"The guest is now in run state {undone.state} (before: {before}); cont continues it."
        )
    if undone.removed:
        return f"{said} No image was left behind."
    return f"{said} The unfinished image {image_path} could not be removed; nobody can restore it."
