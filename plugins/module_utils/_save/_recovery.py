# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What to do about a run that died: pure decisions from what it left and what the guest does now.

The table is the contract; docs/docsite/rst/killed.rst shows it as the tests saw it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .._errors import Refused
from .._qemu._run_states import migration_status_blocks, save_decision
from ._leftover import DEAD, GONE, OTHER, READY, SPENT, UNWRITTEN, Leftover

ABSENT = "absent"
_WRITTEN = ("finish-migrate", "postmigrate")


class Remedy(enum.Enum):
    """What the next run does first."""

    NOTHING = "nothing"
    REMOVE = "remove"
    UNDO = "undo"
    TIDY = "tidy"
    FINISH = "finish"
    PUBLISH = "publish"
    LEAVE = "leave"
    CONTINUE = "continue"


@dataclass(frozen=True)
class Decision:
    """``reason`` follows "FILE: "."""

    remedy: Remedy
    reason: str


def decide(
    leftover: Leftover,
    run_state: str,
    migration_status: str | None,
    *,
    wanted: bool,
    same_guest: bool = True,
) -> Decision:
    """Finish or undo? ``run_state`` and ``migration_status`` are the guest's now, ABSENT where
    nothing listens; ``wanted``: this very image, of this kind, is what the run was asked for;
    ``same_guest``: the guest on the socket is the one in the file.

    Raises `Refused` where only the operator can say.
    """
    if leftover.owner == OTHER:
        raise Refused(
            f"{leftover.path} was left by a run that died while it saved "
            f"{leftover.name or 'a guest'}, whose QEMU still lives, or is on another host. Run the "
            f"save of the guest on {leftover.qmp_socket} to the same path again: it finishes or "
            "undoes what was begun. If that QEMU is gone after all, remove the file."
        )
    if leftover.state == UNWRITTEN:
        return Decision(Remedy.REMOVE, "no QEMU was told of it")
    if leftover.owner == DEAD:
        return _of_a_dead_qemu(leftover, run_state, same_guest)
    written = run_state in _WRITTEN
    migrating = migration_status_blocks(migration_status) is not None
    if migrating and run_state == "running":
        raise Refused(
            f"A migration of the guest is under way that no save of {leftover.path} began, since "
            "the guest runs. Wait for its end or cancel it (migrate_cancel), then run again."
        )
    if leftover.published:
        return _published(leftover, run_state, wanted)
    if leftover.state == GONE:
        return _gone(leftover, written)
    if leftover.state == READY and written:
        return _ready(leftover, wanted)
    if written and leftover.fdset_id is None:
        raise Refused(
            f"{leftover.path} was left by a run that died, but that QEMU holds the guest in "
            f"{run_state} is not its doing: QEMU does not remember that save. If no copy of the "
            "guest runs elsewhere, continue it with cont, then run the save again."
        )
    if leftover.state in (READY, SPENT):
        return Decision(Remedy.UNDO, "its guest has run since it was taken")
    if leftover.undoing:
        return Decision(Remedy.UNDO, "its run died while it undid the save")
    # What cannot be compared with the guest's RAM is rather written anew, while that can be done.
    finishes = wanted and (leftover.is_mapped_ram or not _ran_before(leftover))
    if (written or migrating) and finishes:
        return Decision(Remedy.FINISH, "QEMU still has the guest's state that it was told to write")
    if written and not _ran_before(leftover):
        raise _paused_and_written(leftover)
    return Decision(Remedy.UNDO, "its run died before the image was whole")


def _paused_and_written(leftover: Leftover) -> Refused:
    again = f"run the save again with the same path ({leftover.target}) and format, or "
    return Refused(
        f"{leftover.path} was left by a run that died. QEMU wrote the paused guest into it, and no "
        "longer lets it be saved without running it. To go on, "
        # Some QEMUs cut the beginning off the file, and with it what finishing takes.
        + (again if leftover.version is not None else "")
        + "continue the guest with cont."
    )


def _gone(leftover: Leftover, written: bool) -> Decision:
    if written:
        raise Refused(
            f"QEMU holds the guest that a run saved into {leftover.path}, which is not there any "
            "more. If it was moved, or restored and removed, this guest must not run twice: end "
            "this QEMU. If it is lost, continue the guest with cont, and save it again."
        )
    return Decision(Remedy.UNDO, "its file is gone, but this QEMU still remembers the save")


def _of_a_dead_qemu(leftover: Leftover, run_state: str, same_guest: bool) -> Decision:
    if leftover.published:
        return Decision(Remedy.NOTHING, "its QEMU has ended")
    if leftover.state == READY and run_state == "running" and same_guest:
        return Decision(Remedy.REMOVE, "its guest was started anew since")
    if leftover.state == READY and run_state != ABSENT:
        raise Refused(
            f"{leftover.path} is a whole image of {leftover.name or 'a guest'}, left by a run that "
            "died; its QEMU has ended. Another QEMU is on this socket now: end it and run the save "
            "once more, which gives the image its name; or remove the file, if nobody needs it."
        )
    if leftover.state == READY:
        return Decision(Remedy.PUBLISH, "it is whole and verified, and only lacks its name")
    return Decision(Remedy.REMOVE, "its QEMU ended, and the guest's RAM with it")


def _published(leftover: Leftover, run_state: str, wanted: bool) -> Decision:
    if run_state == "postmigrate":
        if leftover.state == READY:
            _check_wanted(leftover, wanted)
            return Decision(Remedy.LEAVE, "the image is ready, and its guest still held by QEMU")
        if leftover.spent_by is not None and leftover.fdset_id is not None:
            return Decision(Remedy.CONTINUE, "the image is spent, but its guest not yet continued")
    if leftover.fdset_id is not None:
        return Decision(Remedy.TIDY, "its guest has run since it was taken")
    return Decision(Remedy.NOTHING, "nothing is left to do")


def _ready(leftover: Leftover, wanted: bool) -> Decision:
    _check_wanted(leftover, wanted)
    return Decision(Remedy.LEAVE, "it is whole and verified, and only lacks its name")


def _check_wanted(leftover: Leftover, wanted: bool) -> None:
    if not wanted:
        raise Refused(
            f"{leftover.path} is a whole image of this guest (version {leftover.version}, format "
            f"{leftover.image_format}), which QEMU holds in postmigrate since. Run the save again "
            f"with the path {leftover.target} and that format, to end or continue the guest as "
            "guest_state says; or remove that image, and continue the guest with cont."
        )


def _ran_before(leftover: Leftover) -> bool:
    before = leftover.before
    return before is not None and save_decision(before.run_state).was_running
