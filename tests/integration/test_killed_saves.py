# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save whose run is killed at a named step: the next run ends clean, whatever was left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    look,
)
from ansible_collections.vmfleet.suspend.tests.support.kill_table import Row
from ansible_collections.vmfleet.suspend.tests.support.scene import Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

SLOW = 4 << 20  # bytes per second: the guest's 16 MiB of pattern take two seconds
SECTION = "The run that saves is killed"
EXECUTE = "_qemu._monitor.Monitor.execute"
TOO_SLOW = {"max_bandwidth": SLOW, "timeout_seconds": 1}
RUNNING = {"guest_state": "running"}


@dataclass(frozen=True)
class Case:
    """``remedy``: what the next run does first; ``first``: options of the killed run alone."""

    what: str
    blow: Blow
    remedy: str | None
    options: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)


PUT_BACK = "_save._hold.GuestHold.reset_qemu"
CASES = [
    Case("before the image is created", Blow("_save._run._session", before=True), None),
    Case(
        "the image is created, and empty",
        Blow("_saveimage._publish.PartialImage.write_prefix", before=True),
        "remove",
    ),
    Case("the image's beginning is written", Blow("_save._run.begin_image"), "undo"),
    Case("QEMU has the image", Blow("_save._steps.hand_over"), "undo"),
    Case("QEMU's settings are changed", Blow("_save._run.prepare_qemu"), "undo"),
    Case("the vCPUs are stopped", Blow(EXECUTE, command="stop"), "undo"),
    Case(
        "QEMU writes",
        Blow(EXECUTE, command="query-migrate", nth=3),
        "finish",
        first={"max_bandwidth": SLOW},
    ),
    Case("QEMU has written (postmigrate)", Blow("_save._run.write_guest"), "finish"),
    Case("the image is verified", Blow("_save._run.verify_image"), "finish"),
    Case(
        "publishing: the beginning is written again",
        Blow("_saveimage._publish.PartialImage.write_prefix", nth=2),
        "finish",
    ),
    Case(
        "publishing: the complete magic is written",
        Blow("_saveimage._publish.PartialImage.give_name", before=True),
        "leave",
    ),
    Case("the image is published", Blow("_save._run.publish_image"), "leave"),
    Case("QEMU's settings are back", Blow(PUT_BACK), "leave"),
    Case("before quit", Blow(EXECUTE, command="quit", before=True), "leave"),
    Case("QEMU was told to quit", Blow("_save._leave._has_ended"), None),
    Case(
        "the deadline is over, QEMU is told to stop writing",
        Blow("_save._run.undo", before=True),
        "undo",
        first=TOO_SLOW,
    ),
    Case(
        "undoing: QEMU writes no more",
        Blow("_saveimage._publish.PartialImage.release_space"),
        "undo",
        first=TOO_SLOW,
    ),
    Case(
        "undoing: QEMU's settings are back",
        Blow(EXECUTE, command="cont", before=True),
        "undo",
        first=TOO_SLOW,
    ),
    Case(
        "undoing: the guest is continued",
        Blow("_save._undo._remove_image", before=True),
        "undo",
        first=TOO_SLOW,
    ),
    Case(
        "the copy for inspection is spent",
        Blow("_save._leave._spend"),
        "continue",
        options=RUNNING,
    ),
    Case(
        "the guest of a copy for inspection is continued",
        Blow(EXECUTE, command="cont"),
        "tidy",
        options=RUNNING,
    ),
    Case(
        "the guest of a copy for inspection shall go on",
        Blow("_save._run.publish_image"),
        "leave",
        options=RUNNING,
    ),
]


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    return guest


def ids(cases):
    return [case.what.replace(" ", "-") for case in cases]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_after_a_save_that_was_killed_the_next_run_ends_clean(guest, store, kill_table, case):
    path = store / "guest.save"
    settings = look(guest.qmp_socket).offer
    options = {"path": str(path), "qmp_socket": guest.qmp_socket, **case.options}
    assert run_stricken("save", {**options, **case.first}, case.blow).killed
    then = look_around(guest, store)
    assert then.is_safe

    result = next_run(guest, store, case)
    afterwards = look_around(guest, store)
    kill_table.add(
        Row(
            SECTION,
            case.what,
            then.guest,
            then.images,
            case.remedy or does(result),
            afterwards.guest,
            afterwards.images,
        )
    )
    if case.options == RUNNING:
        assert afterwards == Scene("running", "spent")
        assert look(guest.qmp_socket).offer == settings
        assert guest.execute("query-fdsets") == []
    else:
        assert afterwards == Scene("ended", "ready")
        assert result["guest"]["state"] == "stopped"
        guest.start(incoming=True)
        do_restore(guest.qmp_socket, path)
    guest.wait_passes(2)
    assert guest.mismatches == []


def does(result):
    """What a run does that has nothing to recover."""
    return result["plan"]["action"] if "plan" in result else "says that it was saved"


def next_run(guest, store, case):
    """Check mode foretells what the next run does, and touches nothing."""
    path, then = store / "guest.save", look_around(guest, store)
    foretold = do_save(guest.qmp_socket, path, check_mode=True, **case.options)
    assert look_around(guest, store) == then
    result = do_save(guest.qmp_socket, path, **case.options)
    if "plan" in result:
        assert foretold["plan"]["recovers"] == result["plan"]["recovers"]
        assert (result["plan"]["recovers"] or {}).get("remedy") == case.remedy
    assert foretold["diff"] == result["diff"]
    assert foretold["changed"] == result["changed"]
    return result


def test_after_a_full_store_and_a_killed_run_the_next_run_undoes_both(
    guest, small_store, kill_table
):
    path = small_store / "guest.save"
    settings = look(guest.qmp_socket).offer
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    assert run_stricken("save", where, Blow("_save._run.undo", before=True)).killed
    then = look_around(guest, small_store)
    assert guest.execute("query-migrate")["status"] == "failed"
    with pytest.raises(SaveFailed, match="No space left on device") as failed:
        do_save(guest.qmp_socket, path)
    afterwards = look_around(guest, small_store)
    kill_table.add(
        Row(
            SECTION,
            "the store is full and QEMU has failed",
            then.guest,
            then.images,
            "undo; then the store is full again",
            afterwards.guest,
            afterwards.images,
        )
    )
    assert "continued the guest" in failed.value.facts["actions"]
    assert afterwards == Scene("running", "none")
    assert look(guest.qmp_socket).offer == settings
    guest.wait_passes(2)
    assert guest.mismatches == []
