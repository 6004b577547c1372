# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that is killed before each of its effects in turn, into a model QEMU that lives on.

An effect is a call that changes a file or QEMU (`stricken.EFFECT`). Each test goes through all of
them until a run survives, and lists the numbers of those after which something was wrong.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, VmfleetError
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore
from ansible_collections.vmfleet.suspend.tests.support.model_guest import described, model_guest
from ansible_collections.vmfleet.suspend.tests.support.save_checks import settings
from ansible_collections.vmfleet.suspend.tests.support.stricken import (
    EFFECT,
    Blow,
    stricken_runs,
)

MOST_EFFECTS = 60
REMOVED = "removed"


@dataclass(frozen=True)
class Case:
    """``options``: of the killed restore and of the next; ``model``: fields of the model; ``end``:
    the guest and the image in the end."""

    what: str
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    end: tuple[str, str] = ("running", "spent")
    full: bool = False


RESTORE = Case("a restore")
PAUSED = Case("a guest that stays paused", {"run_state": "paused"}, end=("paused", "ready"))
CASES = [
    RESTORE,
    PAUSED,
    Case("the image is removed", {"remove_image": True}, end=("running", REMOVED)),
    Case("past the page cache", {"bypass_cache": True}, full=True),
]


def cells(cases):
    return [
        pytest.param(
            case, id=case.what.replace(" ", "-"), marks=[pytest.mark.full] if case.full else []
        )
        for case in cases
    ]


@pytest.fixture(scope="module")
def stricken():
    with stricken_runs() as runs:
        yield runs


class Killed:
    """A QEMU that waits, an image, and the restores of it that are killed."""

    def __init__(self, case, stricken, qemu, image):
        self.case, self.qemu, self.image = case, qemu, image
        self._stricken = stricken
        self.settings_before = settings(qemu)
        self._cont, qemu.qemu._cont = qemu.qemu._cont, self._watched_cont
        self.continued_unsafely = False

    def _watched_cont(self, *arguments):
        self.continued_unsafely |= self.image_state == "ready"
        return self._cont(*arguments)

    @property
    def image_state(self):
        return described(self.image).state if self.image.exists() else REMOVED

    @property
    def scene(self):
        return self.qemu.qemu.run_state, self.image_state

    def restore(self, *blows):
        """Whether a restore was killed by one of ``blows``."""
        order = {"path": str(self.image), "qmp_socket": str(self.qemu.qmp_socket)}
        end = self._stricken.run("restore", {**order, **self.case.options}, *blows)
        limit = time.monotonic() + 5
        while self.qemu.monitor._client is not None and time.monotonic() < limit:
            time.sleep(0.001)
        assert self.scene != ("running", "ready")
        assert not self.continued_unsafely
        return end.killed

    def end_clean(self):
        """The next restore ends as it was asked to, and nothing else is left."""
        if self.image_state == REMOVED:
            with pytest.raises(Refused, match="There is no image at"):
                do_restore(self.qemu.qmp_socket, self.image, **self.case.options)
        else:
            result = do_restore(self.qemu.qmp_socket, self.image, **self.case.options)
            assert result["guest"]["state"] == self.case.end[0]
        assert self.scene == self.case.end
        assert not self.continued_unsafely
        assert settings(self.qemu) == self.settings_before
        assert self.qemu.qemu.fdsets == {}


@contextlib.contextmanager
def noting(failures, at):
    """Go on after a failure; all of them are told at the end."""
    try:
        yield
    except (AssertionError, VmfleetError) as exc:
        failures[at] = str(exc).partition("\n")[0]


@pytest.fixture
def each_kill(stricken, saved, tmp_path):
    """Call ``work`` with a `Killed` for each effect of a case's restore that comes after ``first``,
    a kill of its own; the failures."""

    def go_through(case, work, first=None):
        failures: dict[object, str] = {}
        for nth in range(1, MOST_EFFECTS):
            directory = tmp_path / str(nth)
            directory.mkdir()
            image = shutil.copy(saved, directory / "guest.save")
            with model_guest(directory, incoming=True, **case.model) as qemu:
                killed = Killed(case, stricken, qemu, image)
                if first is not None:
                    assert killed.restore(first)
                was_killed = killed.restore(Blow(EFFECT, before=True, nth=nth))
                with noting(failures, nth):
                    work(killed)
            if not was_killed:
                return failures
        raise AssertionError("no run survived")

    return go_through


@pytest.mark.parametrize("case", cells(CASES))
def test_wherever_it_is_killed_the_next_restore_ends_clean(each_kill, case):
    assert each_kill(case, Killed.end_clean) == {}


LOAD = "_qemu._monitor.Monitor.execute"
TWICE = [
    pytest.param(Blow("_restore._load.hand_over"), id="prepared", marks=pytest.mark.full),
    pytest.param(Blow(LOAD, command="migrate-incoming"), id="loading"),
    pytest.param(Blow("_restore._load.note_loaded", before=True), id="loaded"),
    pytest.param(Blow("_restore._load.mark_spent"), id="spent", marks=pytest.mark.full),
]


@pytest.mark.parametrize("first", TWICE)
def test_wherever_the_recovery_is_killed_the_third_restore_ends_clean(each_kill, first):
    assert each_kill(RESTORE, Killed.end_clean, first) == {}


def test_wherever_a_restore_that_fails_is_killed_the_image_stays_ready(each_kill):
    def fail_again(killed):
        for _again in range(2):
            with pytest.raises(VmfleetError, match="cannot be used for another try"):
                do_restore(killed.qemu.qmp_socket, killed.image)
            assert killed.scene == ("inmigrate", "ready")
        assert "cont" not in killed.qemu.commands

    assert each_kill(Case("fails", model={"ends_as": "failed"}), fail_again) == {}


def test_when_its_qemu_dies_too_another_takes_the_image_unless_its_guest_may_have_run(
    each_kill, tmp_path
):
    def another(killed):
        killed.qemu.qemu.end_process()
        killed.qemu.monitor._shut_down()
        before = killed.image_state
        with model_guest(tmp_path, killed.image.with_name("qmp2"), incoming=True) as qemu:
            if before == "ready":
                do_restore(qemu.qmp_socket, killed.image)
                assert qemu.qemu.run_state == "running"
            else:
                with pytest.raises(Refused, match="spent: its guest has run since"):
                    do_restore(qemu.qmp_socket, killed.image)
                assert qemu.qemu.run_state == "inmigrate"
        assert killed.image_state == "spent"

    assert each_kill(RESTORE, another) == {}


def test_a_guest_that_is_loaded_for_another_image_is_never_taken(each_kill, saved, tmp_path):
    other = shutil.copy(saved, tmp_path / "other.save")

    def restore_other(killed):
        run_state, marked = killed.qemu.qemu.run_state, bool(killed.qemu.qemu.fdsets)
        loading = killed.qemu.qemu._is_migrating()
        if run_state == "inmigrate" and not loading:
            return  # it only waits, for whichever comes
        with contextlib.suppress(Refused):
            do_restore(killed.qemu.qmp_socket, other, run_state="paused")
            assert not marked
        assert killed.qemu.commands.count("migrate-incoming") == 1
        assert described(other).state == "ready"

    assert each_kill(RESTORE, restore_other) == {}
