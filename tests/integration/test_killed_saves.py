# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save whose run is killed at a named step: the next run ends clean, whatever was left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    look,
)
from ansible_collections.vmfleet.suspend.tests.support.kill_table import Row
from ansible_collections.vmfleet.suspend.tests.support.scene import Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

SLOW = 8 << 20  # bytes per second: the guest's 16 MiB of pattern take two seconds
EXECUTE = "_qemu._monitor.Monitor.execute"
STOPPED = {"guest_state": "stopped"}
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
        "the copy for inspection is spent",
        Blow("_save._leave._spend"),
        "continue",
        options=RUNNING,
    ),
    Case(
        "the guest of a copy for inspection is continued",
        Blow(EXECUTE, command="cont"),
        None,
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
            "The run that saves is killed",
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
