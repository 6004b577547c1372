# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU is killed under a save, or after a save that was; a save through a pipe is killed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save, image_info
from ansible_collections.vmfleet.suspend.tests.support.kill_table import Row
from ansible_collections.vmfleet.suspend.tests.support.kinds import needs_program
from ansible_collections.vmfleet.suspend.tests.support.scene import ENDED, Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import QEMU, Blow, run_stricken

SLOW: dict[str, Any] = {
    "max_bandwidth": 2 << 20
}  # bytes per second: 4 MiB of pattern take two seconds
EXECUTE = "_qemu._monitor.Monitor.execute"
RUNNING: dict[str, Any] = {"guest_state": "running"}
LOST = Scene(ENDED, "none")
SAVED = Scene(ENDED, "ready")

SETTINGS_CHANGED = Blow("_save._run.prepare_qemu")
WRITING = Blow(EXECUTE, command="query-migrate", nth=3)
WRITTEN = Blow("_save._run.write_guest")
NAMELESS = Blow("_saveimage._publish.PartialImage.give_name", before=True)
PUBLISHED = Blow("_save._run.publish_image")


@dataclass(frozen=True)
class Case:
    """``then``: the scene that the run which was struck leaves."""

    what: str
    blow: Blow
    then: Scene
    options: dict[str, Any] = field(default_factory=dict)


def ids(cases):
    return [case.what.replace(" ", "-") for case in cases]


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest(pattern_mib=4, zero_mib=4)
    guest.start()
    guest.wait_passes(1)
    return guest


def strike(guest, store, blow, **options):
    where = {"path": str(store / "guest.save"), "qmp_socket": guest.qmp_socket}
    return run_stricken("save", {**where, **options}, blow)


def comes_back(guest, store):
    """Whether a new QEMU takes the guest from its image, with its memory as it was."""
    guest.start(incoming=True)
    if do_restore(guest.qmp_socket, store / "guest.save")["guest"]["state"] == "paused":
        guest.execute("cont")
    guest.wait_passes(2)
    return guest.mismatches == []


def add_row(kill_table, section, what, then, next_run, afterwards):
    kill_table.add(
        Row(section, what, then.guest, then.images, next_run, afterwards.guest, afterwards.images)
    )


QEMU_KILLED = [
    Case("before the vCPUs are stopped", SETTINGS_CHANGED, LOST),
    Case("the vCPUs are stopped", Blow(EXECUTE, command="stop"), LOST),
    Case("QEMU writes", WRITING, LOST, SLOW),
    Case("QEMU writes into a compressor", WRITING, LOST, {**SLOW, "image_format": "gzip"}),
    Case("QEMU has written (postmigrate)", WRITTEN, SAVED),
    Case("the image is verified", Blow("_save._run.verify_image"), SAVED),
    Case(
        "publishing: the beginning is written again",
        Blow("_saveimage._publish.PartialImage.write_prefix", before=True, nth=2),
        SAVED,
    ),
    Case("publishing: the complete magic is written", NAMELESS, SAVED),
    Case("the image is published", PUBLISHED, SAVED),
    Case("QEMU's settings are back", Blow("_save._hold.GuestHold.reset_qemu"), SAVED),
    Case("QEMU was told to quit", Blow(EXECUTE, command="quit"), SAVED),
]


@pytest.mark.parametrize("case", QEMU_KILLED, ids=ids(QEMU_KILLED))
def test_a_guest_whose_qemu_is_killed_is_saved_or_reported_as_crashed(
    guest, store, kill_table, case
):
    end = strike(guest, store, replace(case.blow, victim=QEMU, pid=guest.pid), **case.options)
    then = look_around(guest, store)
    if case.then == SAVED:
        assert end.error is None
        assert end.result["changed"] is True
        assert end.result["guest"]["state"] == "stopped"
        assert do_save(guest.qmp_socket, store / "guest.save")["changed"] is False
        next_run = "saved before"
    else:
        assert end.facts["guest"]["state"] == "crashed"
        assert "must be started anew. No image was left behind." in end.error
        with pytest.raises(Refused, match="Nothing listens"):
            do_save(guest.qmp_socket, store / "guest.save")
        next_run = "refused: nothing listens"
    afterwards = look_around(guest, store)
    assert then == afterwards == case.then
    add_row(kill_table, "QEMU is killed", case.what, then, next_run, afterwards)
    if case.then == SAVED:
        assert comes_back(guest, store)


INSPECTION = [
    Case("the copy for inspection is published", PUBLISHED, SAVED),
    Case("the copy for inspection is spent", Blow("_save._leave._spend"), Scene(ENDED, "spent")),
]


@pytest.mark.parametrize("case", INSPECTION, ids=ids(INSPECTION))
def test_a_copy_for_inspection_whose_qemu_is_killed_stays_what_it_is(
    guest, store, kill_table, case
):
    end = strike(guest, store, replace(case.blow, victim=QEMU, pid=guest.pid), **RUNNING)
    then = look_around(guest, store)
    assert end.facts["image"]["state"] == then.images
    assert "QEMU has ended" in end.error
    with pytest.raises(Refused, match="Nothing listens"):
        do_save(guest.qmp_socket, store / "guest.save", **RUNNING)
    afterwards = look_around(guest, store)
    assert then == afterwards == case.then
    add_row(kill_table, "QEMU is killed", case.what, then, "refused: nothing listens", afterwards)
    if case.then == SAVED:
        assert comes_back(guest, store)


BOTH_KILLED = [
    Case("QEMU's settings are changed", SETTINGS_CHANGED, Scene("running", "unfinished")),
    Case("QEMU has written (postmigrate)", WRITTEN, Scene("postmigrate", "unfinished")),
    Case(
        "publishing: the complete magic is written",
        NAMELESS,
        Scene("postmigrate", "ready, not named yet"),
    ),
    Case("the image is published", PUBLISHED, Scene("postmigrate", "ready")),
]


@pytest.mark.parametrize("case", BOTH_KILLED, ids=ids(BOTH_KILLED))
def test_after_run_and_qemu_were_killed_a_whole_image_is_published_and_no_other_kept(
    guest, store, kill_table, case
):
    path, whole = store / "guest.save", "ready" in case.then.images
    assert strike(guest, store, case.blow).killed
    assert look_around(guest, store) == case.then
    guest.kill()
    then = look_around(guest, store)
    if whole:
        foretold = do_save(guest.qmp_socket, path, check_mode=True)
        assert look_around(guest, store) == then
        result = do_save(guest.qmp_socket, path)
        assert foretold["changed"] is result["changed"] is True
        assert do_save(guest.qmp_socket, path)["changed"] is False
        next_run = "saved"
    else:
        with pytest.raises(Refused, match="and the guest's RAM with it") as refused:
            do_save(guest.qmp_socket, path)
        assert any(action.startswith("removed") for action in refused.value.facts["actions"])
        next_run = "refused: the guest's RAM is lost"
    afterwards = look_around(guest, store)
    assert afterwards == (SAVED if whole else LOST)
    section = "The run that saves is killed, and QEMU after it"
    add_row(kill_table, section, case.what, then, next_run, afterwards)
    if whole:
        assert comes_back(guest, store)


@dataclass(frozen=True)
class PipeCase:
    """``comes_to``: how QEMU's migration ends without the run; ``remedy`` of the next one;
    ``was_running``: else the guest was paused before."""

    what: str
    kind: dict[str, Any]
    blow: Blow
    comes_to: str
    remedy: str = "undo"
    was_running: bool = True
    first: dict[str, Any] = field(default_factory=dict)


GZIP = {"image_format": "gzip"}
XZ = {"image_format": "xz"}  # it reads all there is before it writes anything
PUMP = {"image_format": "raw", "bypass_cache": True}
UNREAD = Blow("_pipeline.Pipeline.finish", before=True)
PADDED = Blow("_saveimage._pump.os.ftruncate", before=True)
PIPES = [
    PipeCase("QEMU writes into gzip", GZIP, WRITING, "failed", first=SLOW),
    PipeCase("QEMU writes into the pump", PUMP, WRITING, "failed", first=SLOW),
    PipeCase("QEMU has written, xz has not", XZ, UNREAD, "completed"),
    PipeCase("the pump's last block is longer than its data", PUMP, PADDED, "completed"),
    PipeCase("gzip has written", GZIP, WRITTEN, "completed"),
    PipeCase("the pump has written", PUMP, WRITTEN, "completed"),
    PipeCase("gzip has written a paused guest", GZIP, WRITTEN, "completed", "finish", False),
    PipeCase("the pump has written a paused guest", PUMP, WRITTEN, "completed", "finish", False),
]


def wait_migration(guest, status):
    end = time.monotonic() + 10
    while (found := guest.execute("query-migrate").get("status")) != status:
        assert time.monotonic() < end, found
        time.sleep(0.02)


@pytest.mark.parametrize("case", PIPES, ids=ids(PIPES))
def test_after_a_save_through_a_pipe_was_killed_the_next_run_ends_clean(
    guest, store, kill_table, case
):
    path, program = store / "guest.save", case.kind["image_format"]
    needs_program(program)
    if not case.was_running:
        guest.execute("stop")
    assert strike(guest, store, case.blow, **case.kind, **case.first).killed
    wait_migration(guest, case.comes_to)
    then = look_around(guest, store)
    assert then.is_safe
    result = do_save(guest.qmp_socket, path, **case.kind)
    afterwards = look_around(guest, store)
    assert result["plan"]["recovers"]["remedy"] == case.remedy
    assert afterwards == SAVED
    assert image_info(path)["was_running"] is case.was_running
    section = "The run that saves through a pipe is killed"
    add_row(kill_table, section, case.what, then, case.remedy, afterwards)
    assert comes_back(guest, store)
