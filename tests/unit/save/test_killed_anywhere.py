# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save that is killed before each of its effects in turn, on a model guest that lives on.

An effect is a call that changes a file or QEMU (`stricken.EFFECT`). Each test goes through all of
them until a run survives, and lists the numbers of those after which something was wrong.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, VmfleetError
from ansible_collections.vmfleet.suspend.tests.support.model_guest import described, model_guest
from ansible_collections.vmfleet.suspend.tests.support.save_checks import save, settings
from ansible_collections.vmfleet.suspend.tests.support.stricken import (
    EFFECT,
    ONE_FSYNC,
    Blow,
    stricken_runs,
)

MOST_EFFECTS = 60
STOPPED = {"guest_state": "stopped"}
RUNNING = {"guest_state": "running"}
FAILING = {"ends_as": "failed"}
PAUSED = {"run_state": "paused"}
NAME = "guest.save"
SYNC_DIRECTORY = "_saveimage._publish.PartialImage._sync_directory"


@dataclass(frozen=True)
class Case:
    """``first`` and ``then``: options of the killed save and of the next; ``model``: fields of the
    model until the kill; ``blows``: what else strikes the first save, before it is killed."""

    what: str
    first: dict[str, Any] = field(default_factory=dict)
    then: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    blows: tuple[Blow, ...] = ()
    old_qemu: bool = False
    full: bool = False


def cells(cases):
    """The cases as parameters of a test."""
    return [
        pytest.param(
            case, id=case.what.replace(" ", "-"), marks=[pytest.mark.full] if case.full else []
        )
        for case in cases
    ]


def one_fsync(step, nth=1):
    return Blow(step, before=True, nth=nth, victim=ONE_FSYNC)


SAVE = Case("a save")
COPY = Case("a copy for inspection", first=RUNNING, then=RUNNING)
PAST_CACHE = {"bypass_cache": True}
CASES = [
    SAVE,
    COPY,
    Case("a save, then a copy for inspection", then=RUNNING, full=True),
    Case("a copy for inspection, then a save", first=RUNNING, full=True),
    Case("a save that fails", model=FAILING),
    Case("a save of a paused guest", model=PAUSED),
    Case("a failing save of a paused guest", model={**PAUSED, **FAILING}, full=True),
    Case("a copy of a paused guest", first=RUNNING, then=RUNNING, model=PAUSED, full=True),
    Case("a save past the page cache", first=PAST_CACHE, then=PAST_CACHE, full=True),
    Case(
        "a save whose magic is not flushed",
        blows=(one_fsync("_save._run.publish_image"),),
        full=True,
    ),
    Case("a save whose name is not flushed", blows=(one_fsync(SYNC_DIRECTORY, nth=2),)),
    Case("a save from QEMU 9.0", old_qemu=True, full=True),
    Case("a copy from QEMU 9.0", first=RUNNING, then=RUNNING, old_qemu=True, full=True),
    # QEMU is given a moment before it is told to cancel.
    Case(
        "a save that is too late",
        first={"timeout_seconds": 0.3},
        model={"ends_as": "never"},
        full=True,
    ),
]


@pytest.fixture(scope="module")
def stricken():
    with stricken_runs() as runs:
        yield runs


class Killed:
    """A model guest, its store, and the saves of it that are killed."""

    def __init__(self, case, stricken, guest, store):
        self.case, self.guest, self.store = case, guest, store
        self.image = store / NAME
        self._stricken = stricken
        self.settings_before = settings(guest)
        self._cont, guest.qemu._cont = guest.qemu._cont, self._watched_cont
        self.continued_unsafely = False

    def _watched_cont(self, *arguments):
        self.continued_unsafely |= "ready" in self.images.values()
        return self._cont(*arguments)

    def save(self, *blows, **options):
        """Whether a save with ``options`` was killed by one of ``blows``."""
        order = {"path": str(self.image), "qmp_socket": str(self.guest.qmp_socket), **options}
        end = self._stricken.run("save", order, *blows)
        wait_for_no_client(self.guest)
        if self.case.old_qemu and self.guest.qemu.run_state == "running":
            self.guest.qemu.fdsets.clear()
        assert not (self.run_state == "running" and "ready" in self.images.values())
        assert not self.continued_unsafely
        return end.killed

    @property
    def alive(self):
        return self.guest.qemu.process.poll() is None

    @property
    def run_state(self):
        return self.guest.qemu.run_state if self.alive else "ended"

    @property
    def images(self):
        """State of each file in the store."""
        return {path.name: state_of(path) for path in self.store.iterdir()}

    def mend(self):
        """Whatever let saves fail is gone."""
        self.guest.qemu.ends_as = "completed"

    def end_clean(self):
        """The next save ends as it was asked to, and nothing else is left."""
        self.mend()
        goes_on = self.alive and self.case.then == RUNNING
        result = save(self.guest, self.image, **self.case.then)
        assert not self.continued_unsafely
        if not goes_on:
            assert result["guest"]["state"] == "stopped"
            assert not self.alive
            assert self.images == {NAME: "ready"}
            assert described(self.image).was_running is ("run_state" not in self.case.model)
        else:
            assert result["guest"]["state"] == self.run_state == "running"
            assert self.images == {NAME: "spent"}
            assert settings(self.guest) == self.settings_before
            assert self.guest.qemu.fdsets == {}


def state_of(path):
    try:
        return described(path).state
    except Refused:
        return "damaged" if path.name == NAME else "unwritten"


def wait_for_no_client(guest):
    end = time.monotonic() + 5
    while guest.monitor._client is not None and time.monotonic() < end:
        time.sleep(0.001)


@contextlib.contextmanager
def a_killed(case, stricken, directory):
    """A `Killed` with a new guest and an empty store."""
    (directory / "store").mkdir(parents=True)
    with model_guest(directory, **case.model) as guest:
        yield Killed(case, stricken, guest, directory / "store")


@contextlib.contextmanager
def noting(failures, at):
    """Go on after a failure; all of them are told at the end."""
    try:
        yield
    except (AssertionError, VmfleetError) as exc:
        failures[at] = str(exc).partition("\n")[0]


@pytest.fixture
def each_kill(stricken, tmp_path):
    """Call ``work`` with a `Killed` for each effect of a case's first save; the failures."""

    def go_through(case, work):
        failures: dict[object, str] = {}
        for nth in range(1, MOST_EFFECTS):
            with a_killed(case, stricken, tmp_path / str(nth)) as killed:
                blow = Blow(EFFECT, before=True, nth=nth)
                was_killed = killed.save(*case.blows, blow, **case.first)
                with noting(failures, nth):
                    work(killed)
            if not was_killed:
                return failures
        raise AssertionError("no run survived")

    return go_through


@pytest.mark.parametrize("case", cells(CASES))
def test_wherever_it_is_killed_the_next_save_ends_clean(each_kill, case):
    assert each_kill(case, Killed.end_clean) == {}


# Something else happens before the next save.


@pytest.mark.parametrize("case", cells([SAVE, replace(COPY, full=True)]))
def test_when_its_qemu_dies_too_a_whole_image_stays_or_none(each_kill, case):
    def end(killed):
        killed.guest.qemu.end_process()
        killed.guest.monitor._shut_down()
        whole = "ready" in killed.images.values()
        for _again in range(2):
            with contextlib.suppress(Refused):
                save(killed.guest, killed.image, **case.then)
                assert whole
            left = set(killed.images.values())
            assert left == {"ready"} if whole else left <= {"spent"}
            assert not [name for name in killed.images if name != NAME]

    assert each_kill(case, end) == {}


@pytest.mark.full
def test_when_its_guest_was_started_anew_the_next_save_ends_clean(each_kill):
    def start_anew(killed):
        killed.guest.qemu.end_process()
        killed.guest.monitor._shut_down()
        directory = killed.store.parent / "anew"
        directory.mkdir()
        killed.guest.qmp_socket.unlink()
        with model_guest(directory, killed.guest.qmp_socket) as guest:
            killed.guest = guest
            killed.end_clean()

    assert each_kill(SAVE, start_anew) == {}


@pytest.mark.full
def test_when_somebody_removed_its_file_the_next_save_ends_clean_or_asks(each_kill):
    def remove(killed):
        hidden = killed.store / f".{NAME}.partial"
        if not killed.alive:
            return
        there = hidden.exists()
        hidden.unlink(missing_ok=True)
        try:
            killed.end_clean()
        except Refused as exc:
            assert there and "must not run twice" in exc.message
            killed.guest.qemu.run_state = "running"  # the operator continues it
            killed.end_clean()

    assert each_kill(SAVE, remove) == {}


@pytest.mark.full
def test_when_somebody_continued_its_guest_the_next_save_ends_clean(each_kill):
    def go_on(killed):
        if killed.run_state == "postmigrate":
            killed.guest.qemu.run_state = "running"
            killed.end_clean()

    assert each_kill(SAVE, go_on) == {}


@pytest.mark.parametrize(
    "then", [STOPPED, pytest.param(RUNNING, marks=pytest.mark.full)], ids=["save", "copy"]
)
def test_a_save_into_another_file_is_that_or_refused_for_the_first_one(each_kill, then):
    def save_elsewhere(killed):
        if not killed.alive:
            return
        other, unseen = killed.store / "other.save", {}
        if not killed.guest.qemu.fdsets:  # nothing leads to it, and nobody can restore it
            unseen = {name: state for name, state in killed.images.items() if state != "ready"}
        try:
            save(killed.guest, other, **then)
        except Refused as exc:
            assert NAME in exc.message or "postmigrate" in exc.message
            killed.end_clean()
        else:
            state = "ready" if then == STOPPED else "spent"
            assert killed.images == {"other.save": state, **unseen}
            assert killed.alive is (then == RUNNING)

    assert each_kill(SAVE, save_elsewhere) == {}


@pytest.mark.full
def test_a_save_in_another_format_is_that_or_refused_in_favour_of_the_first(each_kill):
    def save_otherwise(killed):
        if not killed.alive:
            return
        try:
            save(killed.guest, killed.image, image_format="sparse")
        except Refused as exc:
            assert "version 3" in exc.message  # or nobody knows how to finish it
            killed.end_clean()
        else:
            assert killed.images == {NAME: "ready"}

    assert each_kill(SAVE, save_otherwise) == {}


# The run that recovers is killed as well.

WRITE_GUEST = "_save._run.write_guest"
GIVE_NAME = "_saveimage._publish.PartialImage.give_name"
RESET_QEMU = "_save._hold.GuestHold.reset_qemu"
TWICE = [
    (Case("prepared", full=True), Blow("_save._run.prepare_qemu")),
    (Case("stopped", full=True), Blow("_qemu._monitor.Monitor.execute", command="stop")),
    (Case("QEMU has written"), Blow(WRITE_GUEST)),
    (Case("QEMU has written a copy", then=RUNNING, full=True), Blow(WRITE_GUEST)),
    (Case("complete magic"), Blow(GIVE_NAME, before=True)),
    (Case("complete magic of a copy", then=RUNNING, full=True), Blow(GIVE_NAME, before=True)),
    (Case("published", then=RUNNING, full=True), Blow("_save._run.publish_image")),
    (Case("being undone", model=FAILING, full=True), Blow(RESET_QEMU, before=True)),
    (Case("undone, but not continued", model=FAILING, full=True), Blow(RESET_QEMU)),
    (Case("paused, QEMU has written", model=PAUSED, full=True), Blow(WRITE_GUEST)),
]


@pytest.mark.parametrize(
    ("case", "blow"),
    [
        pytest.param(*twice, id=cell.id, marks=cell.marks)
        for twice, cell in zip(TWICE, cells(case for case, _blow in TWICE), strict=True)
    ],
)
def test_wherever_the_recovery_is_killed_the_third_save_ends_clean(stricken, tmp_path, case, blow):
    failures: dict[object, str] = {}
    for nth in range(1, MOST_EFFECTS):
        with a_killed(case, stricken, tmp_path / str(nth)) as killed:
            assert killed.save(blow, **case.first)
            killed.mend()
            again = killed.save(Blow(EFFECT, before=True, nth=nth), **case.then)
            with noting(failures, nth):
                killed.end_clean()
        if not again:
            break
    assert failures == {}
