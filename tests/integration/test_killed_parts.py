# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save leans on fails under it: compressors, the store, the monitor's connection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _steps
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save, look
from ansible_collections.vmfleet.suspend.tests.support.kill_table import Row
from ansible_collections.vmfleet.suspend.tests.support.kinds import needs_program
from ansible_collections.vmfleet.suspend.tests.support.scene import ENDED, Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import (
    FSYNC,
    MONITOR,
    ONE_FSYNC,
    Blow,
    run_stricken,
)

SECTION = "A compressor, the store or the monitor fails"
SLOW = {"max_bandwidth": 8 << 20}  # bytes per second: 16 MiB of pattern take two seconds
EXECUTE = "_qemu._monitor.Monitor.execute"
WRITE_PREFIX = "_saveimage._publish.PartialImage.write_prefix"
WRITING = Blow(EXECUTE, command="query-migrate", nth=3)
INSPECTION = {"guest_state": "running"}

AS_BEFORE = Scene("running", "none")
SAVED = Scene(ENDED, "ready")
HELD = Scene("postmigrate", "ready")
SPENT = Scene("running", "spent")
UNDONE = "running as before. No image was left behind."


@dataclass(frozen=True)
class Case:
    """``then``: the scene that the run which was struck leaves; ``says``: part of its error;
    ``next_run``: the remedy of the next one, or what it says; ``first``: options of the struck run
    alone."""

    what: str
    blow: Blow | None
    then: Scene
    says: str = ""
    next_run: str = "nothing to recover"
    options: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)


def ids(cases):
    return [case.what.replace(" ", "-") for case in cases]


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    return guest


def add_row(kill_table, what, then, next_run, afterwards):
    kill_table.add(
        Row(SECTION, what, then.guest, then.images, next_run, afterwards.guest, afterwards.images)
    )


def remedy_of(result):
    """What the next run did first, as the table has it."""
    if not result["changed"]:
        return "saved before"
    recovers = result["plan"]["recovers"]
    return recovers["remedy"] if recovers else "nothing to recover"


def check(guest, store, kill_table, case, next_store=None):
    """Strike, look, save again, look, and let the guest check its memory; ``next_store``: where the
    second save goes. Returns how the struck run ended."""
    settings = look(guest.qmp_socket).offer
    where = {"path": str(store / "guest.save"), "qmp_socket": guest.qmp_socket}
    end = run_stricken("save", {**where, **case.options, **case.first}, case.blow)
    then = look_around(guest, store)
    if guest.alive():
        held = then.guest == "postmigrate"  # with a bookmark for the next run
        assert bool(guest.execute("query-fdsets")) is held
        assert look(guest.qmp_socket).offer == settings

    next_store = next_store or store
    result = do_save(guest.qmp_socket, next_store / "guest.save", **case.options)
    afterwards = look_around(guest, next_store)
    add_row(kill_table, case.what, then, remedy_of(result), afterwards)
    assert then == case.then
    told = end.facts or end.result or {}
    assert told["guest"]["state"] == {ENDED: "stopped"}.get(then.guest, then.guest)
    assert case.says in (end.error or "")
    assert remedy_of(result) == case.next_run
    assert afterwards == (SPENT if case.options == INSPECTION else SAVED)
    if afterwards == SAVED:
        guest.start(incoming=True)
        do_restore(guest.qmp_socket, next_store / "guest.save")
    guest.wait_passes(2)
    assert guest.mismatches == []
    return end


@pytest.mark.parametrize("program", ["gzip", "zstd"])
def test_a_compressor_that_is_killed_ends_the_save_and_the_guest_goes_on(
    guest, store, kill_table, program
):
    needs_program(program)
    case = Case(
        f"{program} is killed while QEMU writes",
        replace(WRITING, victim=program),
        AS_BEFORE,
        f"{program} was killed by signal 9. The guest is running as before.",
        options={"image_format": program},
        first=SLOW,
    )
    check(guest, store, kill_table, case)


def test_a_decompressor_that_is_killed_leaves_the_image_for_another_qemu(guest, store, kill_table):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, image_format="gzip")
    guest.start(incoming=True)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    blow = Blow(EXECUTE, command="migrate-incoming", before=True, victim="gzip")
    end = run_stricken("restore", where, blow)
    then = look_around(guest, store)
    assert end.error is not None
    assert "gzip was killed by signal 9" in end.error
    assert "The image is unharmed and ready" in end.error

    guest.kill()
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    afterwards = look_around(guest, store)
    what, next_run = "gzip is killed while QEMU loads", "restored into a new QEMU"
    add_row(kill_table, what, then, next_run, afterwards)
    assert then == Scene("inmigrate", "ready")
    assert afterwards == SPENT
    guest.wait_passes(2)
    assert guest.mismatches == []


FULL = "No space left on device"
KINDS: dict[str, dict[str, Any]] = {
    "version 3": {},
    "version 3, O_DIRECT": {"bypass_cache": True},
    "raw": {"image_format": "raw"},
    "raw, O_DIRECT": {"image_format": "raw", "bypass_cache": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_store_gives_its_space_back_and_the_guest_goes_on(
    guest, small_store, store, kill_table, kind
):
    case = Case(f"the store is full ({kind})", None, AS_BEFORE, FULL, options=KINDS[kind])
    check(guest, small_store, kill_table, case, next_store=store)


@pytest.mark.full
def test_a_store_that_is_full_only_when_qemu_has_written_everything_ends_the_save_too(
    guest, small_store, store, kill_table
):
    needs_program("xz")
    # It compresses blocks of 12 MiB: QEMU's 17 MiB are in its memory before it writes a byte.
    what, xz = "the store is full after QEMU has written (xz)", {"image_format": "xz"}
    case = Case(what, None, AS_BEFORE, FULL, first=xz)
    end = check(guest, small_store, kill_table, case, next_store=store)
    assert end.facts["step"] == "waiting for the end of the stream"


def test_a_page_that_is_corrupted_before_verification_ends_the_save_and_the_guest_goes_on(
    guest, store, kill_table, monkeypatch
):
    def flip_a_bit_then_walk(fd, path):
        structure = verify_structure(fd, path)
        block = structure.head.ram_blocks[0]
        offset = block.pages_offset_bytes + guest.regions.pattern_start_bytes
        (byte,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte ^ 1]), offset)
        return structure

    with monkeypatch.context() as patched:
        patched.setattr(_steps, "verify_structure", flip_a_bit_then_walk)
        with pytest.raises(SaveFailed, match="differs from the guest's RAM"):
            do_save(guest.qmp_socket, store / "guest.save", verify="content")
    then = look_around(guest, store)
    do_save(guest.qmp_socket, store / "guest.save", verify="content")
    afterwards = look_around(guest, store)
    what = "a written page is corrupted (verify: content)"
    add_row(kill_table, what, then, "nothing to recover", afterwards)
    assert then == AS_BEFORE
    assert afterwards == SAVED


FSYNC_FAILS = [
    Case(
        "fsync fails: the image's beginning",
        Blow(WRITE_PREFIX, before=True, victim=FSYNC),
        AS_BEFORE,
        UNDONE,
    ),
    Case(
        "fsync fails: flushing what QEMU wrote",
        Blow("_saveimage._publish.PartialImage.sync", before=True, victim=FSYNC),
        AS_BEFORE,
        UNDONE,
    ),
    Case(
        "fsync fails: the beginning is written again",
        Blow(WRITE_PREFIX, nth=2, before=True, victim=FSYNC),
        AS_BEFORE,
        UNDONE,
    ),
    Case(
        "fsync fails once: the complete magic",
        Blow(WRITE_PREFIX, nth=2, victim=ONE_FSYNC),
        AS_BEFORE,
        UNDONE,
    ),
    Case(
        "fsync fails once: the image's name",
        Blow("_saveimage._publish.PartialImage.give_name", before=True, victim=ONE_FSYNC),
        AS_BEFORE,
        UNDONE,
    ),
    Case(
        "fsync fails: the complete magic",
        Blow(WRITE_PREFIX, nth=2, victim=FSYNC),
        Scene("postmigrate", "ready, not named yet"),
        "/.guest.save.partial is whole but could not be withdrawn, so the guest was left in "
        "postmigrate. Run the save again to finish it.",
        "leave",
    ),
    Case(
        "fsync fails: the image's name",
        Blow("_saveimage._publish.PartialImage.give_name", before=True, victim=FSYNC),
        HELD,
        "/guest.save is whole but could not be withdrawn, so the guest was left in postmigrate. "
        "Run the save again to finish it.",
        "leave",
    ),
    Case(
        "fsync fails: the note before quit",
        Blow("_save._leave._quit", before=True, victim=FSYNC),
        HELD,
        "Do not continue it while the image is ready",
        "leave",
    ),
    Case(
        "fsync fails: marking the copy for inspection spent",
        Blow("_save._leave._spend", before=True, victim=FSYNC),
        HELD,
        "Do not continue it while the image is ready",
        "leave",
        options=INSPECTION,
    ),
]


@pytest.mark.parametrize("case", FSYNC_FAILS, ids=ids(FSYNC_FAILS))
def test_an_fsync_that_fails_never_leaves_a_guest_that_runs_beside_its_image(
    guest, store, kill_table, case
):
    check(guest, store, kill_table, case)


def hang_up(command, *, before):
    return Blow(EXECUTE, command=command, before=before, victim=MONITOR)


MONITOR_BREAKS = [
    Case("the monitor breaks before stop", hang_up("stop", before=True), AS_BEFORE, UNDONE),
    Case("the monitor breaks after stop", hang_up("stop", before=False), AS_BEFORE, UNDONE),
    Case("the monitor breaks before migrate", hang_up("migrate", before=True), AS_BEFORE, UNDONE),
    Case(
        "the monitor breaks after migrate",
        hang_up("migrate", before=False),
        SAVED,
        next_run="saved before",
    ),
    Case(
        "the monitor breaks while QEMU writes",
        replace(WRITING, victim=MONITOR),
        SAVED,
        next_run="saved before",
        first=SLOW,
    ),
    Case(
        "the monitor breaks before QEMU's settings are back (copy for inspection)",
        hang_up("remove-fd", before=True),
        SPENT,
        options=INSPECTION,
    ),
    Case(
        "the monitor breaks before cont (copy for inspection)",
        hang_up("cont", before=True),
        SPENT,
        options=INSPECTION,
    ),
    Case(
        "the monitor breaks after cont (copy for inspection)",
        hang_up("cont", before=False),
        SPENT,
        options=INSPECTION,
    ),
    Case(
        "the monitor breaks before quit",
        hang_up("quit", before=True),
        SAVED,
        next_run="saved before",
    ),
    Case(
        "the monitor breaks after quit",
        hang_up("quit", before=False),
        SAVED,
        next_run="saved before",
    ),
]


@pytest.mark.parametrize("case", MONITOR_BREAKS, ids=ids(MONITOR_BREAKS))
def test_a_monitor_that_breaks_is_connected_again_to_finish_or_undo_the_save(
    guest, store, kill_table, case
):
    check(guest, store, kill_table, case)
