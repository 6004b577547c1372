# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore whose run is killed at a named step: the next run ends clean, whatever was left."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _launch
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save, look
from ansible_collections.vmfleet.suspend.tests.support.kill_table import Row
from ansible_collections.vmfleet.suspend.tests.support.scene import Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

EXECUTE = "_qemu._monitor.Monitor.execute"
GZIP = {"image_format": "gzip"}
PUMP: dict[str, Any] = {"image_format": "raw"}


@dataclass(frozen=True)
class Case:
    """``remedy``: what the next run does first; ``kind``: of the image; ``until``: what the QEMU
    that is left comes to by itself; ``same_qemu``: whether the next run uses it."""

    what: str
    blow: Blow
    remedy: str | None
    kind: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    until: str | None = None
    same_qemu: bool = True


LOADS = Blow(EXECUTE, command="migrate-incoming")
# The pipe holds one block, so that the fifth is only read when QEMU loads.
PUMPS = Blow("_saveimage._pump._write_pipe", nth=5, before=True)
DIRECT = {"bypass_cache": True}
LAZY = {"load": "lazy"}
CASES = [
    Case("QEMU is being started", Blow("_restore._starter.launch"), None),
    Case("QEMU waits", Blow("_restore._starter.wait_for_monitor"), None),
    Case("QEMU has the image", Blow("_restore._load.hand_over"), "tidy"),
    Case("QEMU's settings are changed", Blow("_restore._load._migrate", before=True), "tidy"),
    Case("QEMU loads", LOADS, "finish", until="paused"),
    Case("QEMU loads from the pump", PUMPS, "end", PUMP, DIRECT, "failed", False),
    Case("QEMU has loaded", Blow("_restore._load._migrate"), "finish"),
    Case(
        "QEMU has loaded from a decompressor",
        Blow("_restore._load._load_from_pipe"),
        "finish",
        GZIP,
    ),
    Case("QEMU's settings are back", Blow("_restore._load.note_loaded", before=True), "finish"),
    Case("the image says where it was loaded", Blow("_restore._load.note_loaded"), "finish"),
    Case("QEMU has no image any more", Blow("_restore._run.load"), None),
    Case("the image is spent", Blow("_restore._load.mark_spent"), None),
    Case("the guest is continued", Blow(EXECUTE, command="cont"), None),
    Case(
        "the image is to be removed",
        Blow("_restore._run.run_guest"),
        None,
        {},
        {"remove_image": True},
    ),
    Case("QEMU loads beside its mapped RAM", LOADS, "finish", {}, LAZY, "paused"),
    Case("the mapped RAM is proved", Blow("_restore._lazy.prove"), None, {}, LAZY),
    Case("the mapped image is spent", Blow("_restore._load.mark_spent"), None, {}, LAZY),
    Case("the guest runs from its image", Blow(EXECUTE, command="cont"), None, {}, LAZY),
    Case("its image is read-only", Blow("_restore._run.keep_from_changing"), None, {}, LAZY),
]


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    return guest


def wait_until(guest, state):
    """Until QEMU has loaded, or has failed to."""
    end = time.monotonic() + 10
    while state not in (guest.status(), guest.execute("query-migrate").get("status")):
        assert time.monotonic() < end, state
        time.sleep(0.05)


@pytest.mark.parametrize("case", CASES, ids=[case.what.replace(" ", "-") for case in CASES])
def test_after_a_restore_that_was_killed_the_next_run_ends_clean(guest, store, kill_table, case):
    path = store / "guest.save"
    settings = look(guest.qmp_socket).offer
    do_save(guest.qmp_socket, path, **case.kind)
    options = {**case.options, "argv": guest.argv()}
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    assert run_stricken("restore", {**where, **options}, case.blow).killed
    wait_until(guest, case.until) if case.until else wait_answer(guest)
    left, then = guest.pid, look_around(guest, store)
    assert then.is_safe

    foretold = do_restore(guest.qmp_socket, path, check_mode=True, **options)
    assert look_around(guest, store) == then
    result = do_restore(guest.qmp_socket, path, **options)
    afterwards = look_around(guest, store)
    kill_table.add(
        Row(
            "The run that restores is killed",
            case.what,
            then.guest,
            then.images,
            case.remedy or result["plan"]["action"],
            afterwards.guest,
            afterwards.images,
        )
    )
    assert foretold["plan"]["recovers"] == result["plan"]["recovers"]
    assert (result["plan"]["recovers"] or {}).get("remedy") == case.remedy
    assert foretold["changed"] == result["changed"]
    assert foretold["diff"] == result["diff"]
    assert afterwards == Scene("running", "none" if case.options.get("remove_image") else "spent")
    assert (guest.pid == left) is case.same_qemu
    assert look(guest.qmp_socket).offer == settings
    assert guest.execute("query-fdsets") == []
    guest.wait_passes(2)
    assert guest.mismatches == []


def wait_answer(guest):
    end = time.monotonic() + 10
    while not (guest.alive() and guest._listens()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_qemu_of_somebody_else_whose_load_failed_is_not_ended(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, **PUMP)
    guest.start(incoming=True)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket, **DIRECT}
    assert run_stricken("restore", where, PUMPS).killed
    wait_until(guest, "failed")
    with pytest.raises(Refused, match="end it and start a new one"):
        do_restore(guest.qmp_socket, path)
    assert look_around(guest, store) == Scene("inmigrate", "ready")
    guest.kill()
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    guest.wait_passes(2)


def test_a_guest_whose_restore_died_cannot_be_saved_before_that_is_finished(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    guest.start(incoming=True)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    blow = Blow("_restore._load.note_loaded", before=True)
    assert run_stricken("restore", where, blow).killed
    with pytest.raises(Refused, match=r"restore of .* begun by a run that died"):
        do_save(guest.qmp_socket, store / "other.save")
    assert look_around(guest, store) == Scene("paused", "ready")


def test_a_restore_into_a_qemu_that_holds_another_images_guest_is_refused(guest, tiny_guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    other = tiny_guest()
    other.start()
    other.wait_ready()
    do_save(other.qmp_socket, store / "other.save")
    guest.start(incoming=True)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    blow = Blow("_restore._load.note_loaded", before=True)
    assert run_stricken("restore", where, blow).killed
    with pytest.raises(Refused, match=r"guest\.save, whose restore was begun"):
        do_restore(guest.qmp_socket, store / "other.save")
    assert do_restore(guest.qmp_socket, path)["guest"]["state"] == "running"


def test_a_qemu_that_does_not_listen_yet_is_waited_for_not_started_twice(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket, "argv": guest.argv()}
    assert run_stricken("restore", where, Blow("_restore._starter.launch")).killed
    result = do_restore(guest.qmp_socket, path, argv=tuple(guest.argv()))
    assert result["guest"]["state"] == "running"
    assert guest._pids() == [result["guest"]["pid"]]
    guest.wait_passes(2)


def test_a_guest_that_runs_without_its_socket_is_never_started_twice(guest, store, monkeypatch):
    monkeypatch.setattr(_launch, "_OTHER_SECONDS", 0.2)
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    argv = tuple(guest.argv())
    pid = do_restore(guest.qmp_socket, path, argv=argv)["guest"]["pid"]
    os.unlink(guest.qmp_socket)
    with pytest.raises(RestoreFailed, match=f"process {pid} runs with the same argv"):
        do_restore(guest.qmp_socket, path, argv=argv, allow=frozenset({"spent"}))
    assert guest._pids() == [pid]
