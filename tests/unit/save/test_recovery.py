# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done about a save that died: the whole table, and what holds in every row of it."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import (
    SPENT_FOR_INSPECTION,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._bookmark import StateBefore
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._leftover import (
    DEAD,
    GONE,
    NOBODY,
    OTHER,
    PARTIAL,
    READY,
    SPENT,
    THIS,
    UNWRITTEN,
    Leftover,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._recovery import (
    Remedy,
    decide,
)
from ansible_collections.vmfleet.suspend.tests.support.values import IMAGE, SOCKET

HIDDEN = "/store/.web01.save.partial"
REFUSED = "refused"
ANY = None
WANTED, UNWANTED = True, False
# Run states of a guest that a save was begun of: before, stopped, ending, ended.
RUN_STATES = ("running", "paused", "finish-migrate", "postmigrate")
STATUSES = (None, "active", "device", "cancelling", "completed", "failed", "cancelled")
MAPPED = {"version": 3, "image_format": "raw"}
SEQUENTIAL = {"version": 2, "image_format": "zstd"}


def a_leftover(
    state,
    owner=THIS,
    *,
    published=False,
    before="running",
    fdset_id=0,
    kind=None,
    spent_by_save=False,
    undoing=False,
):
    return Leftover(
        target=IMAGE,
        path=IMAGE if published else HIDDEN,
        state=state,
        published=published,
        owner=owner,
        before=StateBefore(before, {}, {}) if before else None,
        fdset_id=fdset_id,
        name="web01",
        qmp_socket=SOCKET,
        spent_by=SPENT_FOR_INSPECTION if spent_by_save else None,
        undoing=undoing,
        **(MAPPED if kind is None else kind),
    )


def remedy_of(leftover, run_state, status, wanted):
    """The remedy, or REFUSED."""
    try:
        return decide(leftover, run_state, status, wanted=wanted).remedy
    except Refused:
        return REFUSED


# What was left, the guest's run state and its migration's status now, whether the run asks for this
# very image; ANY stands for each value.
TABLE = [
    # Nobody's, another's, a dead one's.
    (a_leftover(UNWRITTEN, NOBODY, fdset_id=None), ANY, ANY, ANY, Remedy.REMOVE),
    (a_leftover(PARTIAL, OTHER), ANY, ANY, ANY, REFUSED),
    (a_leftover(READY, OTHER), ANY, ANY, ANY, REFUSED),
    (a_leftover(SPENT, OTHER), ANY, ANY, ANY, REFUSED),
    (a_leftover(PARTIAL, DEAD, fdset_id=None), ANY, ANY, ANY, Remedy.REMOVE),
    (a_leftover(SPENT, DEAD, fdset_id=None), ANY, ANY, ANY, Remedy.REMOVE),
    (a_leftover(READY, DEAD, fdset_id=None), "absent", ANY, ANY, Remedy.PUBLISH),
    (a_leftover(READY, DEAD, fdset_id=None), "running", ANY, ANY, Remedy.REMOVE),  # begun anew
    (a_leftover(READY, DEAD, fdset_id=None), "paused", ANY, ANY, REFUSED),
    (a_leftover(READY, DEAD, fdset_id=None, published=True), ANY, ANY, ANY, Remedy.NOTHING),
    (a_leftover(SPENT, DEAD, fdset_id=None, published=True), ANY, ANY, ANY, Remedy.NOTHING),
    # The file is gone.
    (a_leftover(GONE), "running", None, ANY, Remedy.UNDO),
    (a_leftover(GONE), "paused", ANY, ANY, Remedy.UNDO),
    (a_leftover(GONE), "postmigrate", ANY, ANY, REFUSED),  # perhaps it was moved
    # A migration of a guest that runs is somebody else's.
    (a_leftover(PARTIAL), "running", "active", ANY, REFUSED),
    (a_leftover(GONE), "running", "active", ANY, REFUSED),
    # QEMU does not remember the save: somebody else brought it there.
    (a_leftover(PARTIAL, fdset_id=None), "postmigrate", ANY, ANY, REFUSED),
    (a_leftover(PARTIAL, undoing=True), "postmigrate", ANY, ANY, Remedy.UNDO),
    # Partial, of a guest that ran: before stop, stopped, migrating, failed, postmigrate.
    (a_leftover(PARTIAL), "running", None, ANY, Remedy.UNDO),
    (a_leftover(PARTIAL), "paused", None, ANY, Remedy.UNDO),
    (a_leftover(PARTIAL), "paused", "failed", ANY, Remedy.UNDO),
    (a_leftover(PARTIAL), "paused", "cancelled", ANY, Remedy.UNDO),
    (a_leftover(PARTIAL), "paused", "completed", ANY, Remedy.UNDO),  # of a save before this one
    (a_leftover(PARTIAL), "paused", "active", WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL), "paused", "active", UNWANTED, Remedy.UNDO),
    (a_leftover(PARTIAL), "paused", "cancelling", WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL), "finish-migrate", ANY, WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL), "finish-migrate", ANY, UNWANTED, Remedy.UNDO),
    (a_leftover(PARTIAL), "postmigrate", ANY, WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL), "postmigrate", ANY, UNWANTED, Remedy.UNDO),
    # Its pages cannot be compared with the RAM: taken anew.
    (a_leftover(PARTIAL, kind=SEQUENTIAL), "paused", "active", ANY, Remedy.UNDO),
    (a_leftover(PARTIAL, kind=SEQUENTIAL), "postmigrate", ANY, ANY, Remedy.UNDO),
    # Partial, of a guest that was paused: written, it cannot be saved again.
    (a_leftover(PARTIAL, before="paused"), "paused", None, ANY, Remedy.UNDO),
    (a_leftover(PARTIAL, before="paused"), "paused", "active", WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL, before="paused"), "paused", "active", UNWANTED, Remedy.UNDO),
    (a_leftover(PARTIAL, before="paused"), "postmigrate", ANY, WANTED, Remedy.FINISH),
    (a_leftover(PARTIAL, before="paused"), "postmigrate", ANY, UNWANTED, REFUSED),
    (
        a_leftover(PARTIAL, before="paused", kind=SEQUENTIAL),
        "postmigrate",
        ANY,
        WANTED,
        Remedy.FINISH,
    ),
    (a_leftover(PARTIAL, before="prelaunch"), "postmigrate", ANY, UNWANTED, REFUSED),
    (a_leftover(PARTIAL, before=None), "postmigrate", ANY, UNWANTED, REFUSED),
    (a_leftover(PARTIAL, before=None), "postmigrate", ANY, WANTED, Remedy.FINISH),
    # Whole, without its name.
    (a_leftover(READY), "postmigrate", ANY, WANTED, Remedy.LEAVE),
    (a_leftover(READY), "finish-migrate", ANY, WANTED, Remedy.LEAVE),
    (a_leftover(READY), "postmigrate", ANY, UNWANTED, REFUSED),
    (a_leftover(READY), "running", ANY, ANY, Remedy.UNDO),
    (a_leftover(READY), "paused", ANY, ANY, Remedy.UNDO),
    # Taken back by its run.
    (a_leftover(SPENT), "postmigrate", ANY, ANY, Remedy.UNDO),
    (a_leftover(SPENT), "running", None, ANY, Remedy.UNDO),
    # Published.
    (a_leftover(READY, published=True), "postmigrate", ANY, WANTED, Remedy.LEAVE),
    (a_leftover(READY, published=True), "postmigrate", ANY, UNWANTED, REFUSED),
    (a_leftover(READY, published=True, fdset_id=None), "postmigrate", ANY, WANTED, Remedy.LEAVE),
    (a_leftover(READY, published=True), "running", ANY, ANY, Remedy.TIDY),
    (a_leftover(READY, published=True), "paused", ANY, ANY, Remedy.TIDY),
    (a_leftover(READY, published=True, fdset_id=None), "running", ANY, ANY, Remedy.NOTHING),
    (
        a_leftover(SPENT, published=True, spent_by_save=True, fdset_id=None),
        "postmigrate",
        ANY,
        ANY,
        Remedy.NOTHING,
    ),
    (
        a_leftover(SPENT, published=True, spent_by_save=True),
        "postmigrate",
        ANY,
        ANY,
        Remedy.CONTINUE,
    ),
    (a_leftover(SPENT, published=True, spent_by_save=True), "running", None, ANY, Remedy.TIDY),
    # Spent by a restore: its guest runs elsewhere.
    (a_leftover(SPENT, published=True, fdset_id=None), "postmigrate", ANY, ANY, Remedy.NOTHING),
    (a_leftover(SPENT, published=True), "postmigrate", ANY, ANY, Remedy.TIDY),
]


@pytest.mark.parametrize(("leftover", "run_state", "status", "wanted", "remedy"), TABLE)
def test_the_remedy(leftover, run_state, status, wanted, remedy):
    for combination in itertools.product(
        RUN_STATES if run_state is ANY else [run_state],
        # None stands for itself where the row is about a guest that was never migrated.
        STATUSES if status is ANY and run_state not in ("running", "paused") else [status],
        [True, False] if wanted is ANY else [wanted],
    ):
        assert remedy_of(leftover, *combination) == remedy, combination


# In every row.

OWNERS = {GONE: [THIS], UNWRITTEN: [NOBODY]}
LEFTOVERS = [
    a_leftover(
        state,
        owner,
        published=published,
        before=before,
        fdset_id=fdset_id,
        kind=kind,
        spent_by_save=spent_by_save,
    )
    for state in (GONE, UNWRITTEN, PARTIAL, READY, SPENT)
    for owner, published, before, fdset_id, kind, spent_by_save in itertools.product(
        OWNERS.get(state, [THIS, DEAD, OTHER]),
        [True, False] if state in (PARTIAL, READY, SPENT) else [False],
        ["running", "paused", None],
        [0, None],
        [MAPPED, SEQUENTIAL],
        [True, False] if state == SPENT else [False],
    )
]
ROWS = [
    (leftover, run_state, wanted, remedy_of(leftover, run_state, status, wanted))
    for leftover, run_state, status, wanted in itertools.product(
        LEFTOVERS, [*RUN_STATES, "absent", "io-error"], STATUSES, [True, False]
    )
]
OF_A_GUEST = {Remedy.UNDO, Remedy.TIDY, Remedy.FINISH, Remedy.LEAVE, Remedy.CONTINUE}
HELD = ("finish-migrate", "postmigrate")


def broken(rule):
    """The first rows that break the rule."""
    return [row for row in ROWS if not rule(*row)][:3]


def test_a_held_guest_whose_image_is_ready_is_never_continued_by_the_recovery():
    assert not broken(
        lambda left, run_state, wanted, remedy: (
            (left.state, left.owner) != (READY, THIS)
            or run_state not in HELD
            or remedy in (Remedy.LEAVE, REFUSED)
            or (left.published and run_state == "finish-migrate")
        )  # named after that has ended
    )


def test_a_guest_is_only_continued_beside_an_image_that_a_save_has_spent():
    assert not broken(
        lambda left, run_state, wanted, remedy: (
            remedy is not Remedy.CONTINUE
            or (left.spent_by and (left.owner, run_state) == (THIS, "postmigrate"))
        )
    )


def test_a_published_image_is_never_undone():
    assert not broken(
        lambda left, run_state, wanted, remedy: (
            not left.published or remedy not in (Remedy.UNDO, Remedy.REMOVE, Remedy.FINISH)
        )
    )


def test_what_belongs_to_another_live_qemu_is_always_refused():
    assert not broken(
        lambda left, run_state, wanted, remedy: (left.owner == OTHER) <= (remedy == REFUSED)
    )


def test_for_a_dead_qemu_no_guest_is_touched():
    assert not broken(
        lambda left, run_state, wanted, remedy: left.owner != DEAD or remedy not in OF_A_GUEST
    )


def test_only_a_whole_image_is_published():
    assert not broken(
        lambda left, run_state, wanted, remedy: remedy is not Remedy.PUBLISH or left.state == READY
    )


def test_only_a_ready_image_is_left_to_its_guest():
    assert not broken(
        lambda left, run_state, wanted, remedy: remedy is not Remedy.LEAVE or left.state == READY
    )


def test_a_ready_image_is_never_removed_unless_its_guest_was_started_anew():
    assert not broken(
        lambda left, run_state, wanted, remedy: (
            left.state != READY
            or remedy is not Remedy.REMOVE
            or (left.owner, run_state) == (DEAD, "running")
        )
    )


@pytest.mark.parametrize("remedy", [Remedy.FINISH, Remedy.LEAVE])
def test_nothing_is_finished_that_was_not_asked_for(remedy):
    assert not broken(lambda left, run_state, wanted, done: done is not remedy or wanted)


def test_a_guest_that_ran_before_is_never_left_to_the_operator_because_of_an_unfinished_file():
    assert not broken(
        lambda left, run_state, wanted, remedy: (
            remedy != REFUSED
            or left.owner == OTHER
            or left.state == READY
            or left.before is None
            or left.before.run_state != "running"
            # What somebody else did to the guest since is nobody's to undo.
            or run_state in (*HELD, "running")
        )
    )


# The words.


def refusal(leftover, run_state="postmigrate", *, wanted=False):
    with pytest.raises(Refused) as refused:
        decide(leftover, run_state, None, wanted=wanted)
    return refused.value.message


def test_another_ones_file_is_refused_with_its_guest_and_socket():
    said = refusal(a_leftover(PARTIAL, OTHER), wanted=True)
    assert HIDDEN in said
    assert "web01" in said
    assert f"Run the save of the guest on {SOCKET} to the same path again" in said


@pytest.mark.parametrize("published", [True, False])
def test_an_unwanted_whole_image_is_refused_with_what_to_ask_for(published):
    said = refusal(a_leftover(READY, published=published))
    assert (IMAGE if published else HIDDEN) in said
    assert f"Run the save again with the path {IMAGE}" in said
    assert "version 3, format raw" in said


def test_an_unwanted_image_of_a_paused_guest_is_refused_with_both_ways_on():
    said = refusal(a_leftover(PARTIAL, before="paused"))
    assert HIDDEN in said
    assert f"run the save again with the same path ({IMAGE})" in said
    assert "or continue the guest with cont" in said
