# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves that fail before their image is published: as if nothing had been tried."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _steps
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    PartialImage,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    model_guest,
    once,
    write_short_stream,
)
from ansible_collections.vmfleet.suspend.tests.support.save_checks import (
    assert_as_before,
    fail_fsync,
    fails,
    save,
    settings,
)

NO_SPACE = "Unable to write to file: No space left on device"


# Failures before the image is published: as if nothing had been tried.

FAILURES = [
    ("migrate-set-parameters", "There's a migration process in progress", "capabilities", False),
    ("migrate-set-capabilities", "There's a migration process in progress", "capabilities", False),
    ("add-fd", "No file descriptor supplied via SCM_RIGHTS", "handing the image", False),
    ("stop", "Could not flush the disks", "stopping the vCPUs", True),
    ("migrate", "State blocked by non-migratable device", "writing the guest's state", True),
]


@pytest.mark.parametrize(("command", "words", "step", "stopped"), FAILURES)
def test_a_command_that_qemu_refuses_is_undone(guest, image, store, command, words, step, stopped):
    before = settings(guest)
    guest.monitor.expect(command).fails("GenericError", words)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert words in failed.message
    assert failed.facts["qmp_error"] == words
    assert step in failed.facts["step"]
    assert ("cont" in guest.commands) == stopped


@pytest.mark.parametrize(
    ("command", "words"), [(row[0], row[1]) for row in FAILURES if row[0] != "stop"]
)
def test_a_guest_that_did_not_run_is_not_continued(paused_guest, image, store, command, words):
    before = settings(paused_guest)
    paused_guest.monitor.expect(command).fails("GenericError", words)
    failed = fails(paused_guest, image)
    assert_as_before(paused_guest, store, before, failed, "paused")
    assert "cont" not in paused_guest.commands


@pytest.mark.parametrize("run_state", ["running", "paused"])
def test_a_full_store_is_told_in_qemus_words(tmp_path, image, store, run_state):
    with model_guest(tmp_path, run_state=run_state, ends_as="failed") as guest:
        guest.qemu.error_description = NO_SPACE
        before = settings(guest)
        failed = fails(guest, image)
        assert_as_before(guest, store, before, failed, run_state)
    assert NO_SPACE in failed.message
    assert failed.facts["step"] == "writing the guest's state"


def test_an_image_that_does_not_pass_verification_is_thrown_away(guest, image, store):
    guest.qemu.writer = write_short_stream
    before = settings(guest)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert failed.facts["step"] == "verifying the image"
    assert failed.facts["offset_bytes"] > 0


def test_a_paused_guest_whose_image_is_thrown_away_stays_in_postmigrate(paused_guest, image, store):
    """From there only cont leads back, and its vCPUs were not to run."""
    paused_guest.qemu.writer = write_short_stream
    failed = fails(paused_guest, image)
    assert "run state postmigrate (before: paused); cont continues it" in failed.message
    assert paused_guest.qemu.run_state == failed.facts["guest"]["state"] == "postmigrate"
    assert "cont" not in paused_guest.commands
    assert list(store.iterdir()) == []


def test_an_image_of_other_ram_than_the_guests_is_thrown_away(guest, image, store):
    guest.qemu.info_ramblock = guest.qemu.info_ramblock.replace("000040000", "000080000")
    failed = fails(guest, image)
    assert "262144 bytes in the image and 524288 bytes in this QEMU" in failed.message
    assert list(store.iterdir()) == []


def test_after_the_deadline_the_guest_goes_on(guest, image, store):
    guest.qemu.ends_as = "never"
    before = settings(guest)
    failed = fails(guest, image, timeout_seconds=0.15)
    assert_as_before(guest, store, before, failed)
    assert "timeout of 0.15 s" in failed.message
    assert "migrate_cancel" in guest.commands


def test_a_guest_that_changed_while_it_was_prepared_is_left_alone(guest, image, store):
    def shut_down():
        guest.qemu.run_state = "shutdown"

    once(guest, "stop", shut_down)
    failed = fails(guest, image)
    assert "went into run state shutdown" in failed.message
    assert "migrate" not in guest.commands


def test_a_block_job_that_began_meanwhile_ends_the_save(guest, image, store):
    def begin_job():
        guest.qemu.block_jobs = [{"device": "job0", "type": "mirror", "offset": 0, "len": 1}]

    before = settings(guest)
    once(guest, "stop", begin_job)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert "block job was started" in failed.message


@pytest.mark.parametrize("number", [1, 3], ids=["the beginning", "what QEMU wrote"])
def test_a_store_that_cannot_flush_is_told_and_undone(guest, image, store, monkeypatch, number):
    before = settings(guest)
    fail_fsync(monkeypatch, number)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert "Input/output error" in failed.message


# The way back has steps of its own that can fail.


def test_a_guest_that_cannot_be_continued_is_named_with_its_state(guest, image, store):
    guest.qemu.blocked_reasons = []
    guest.monitor.expect("migrate").fails("GenericError", "no")
    guest.monitor.expect("cont").fails("GenericError", "Failed to get lock on disk.img")
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "paused"
    assert "run state paused (before: running); cont continues it" in failed.message
    assert any("Failed to get lock" in action for action in failed.facts["actions"])


def test_settings_that_cannot_be_put_back_do_not_keep_the_guest_from_going_on(guest, image, store):
    guest.monitor.expect("migrate").fails("GenericError", "no")
    guest.monitor.expect("remove-fd").fails("GenericError", "File descriptor is in use")
    failed = fails(guest, image)
    assert guest.qemu.run_state == "running"
    assert any("File descriptor is in use" in action for action in failed.facts["actions"])


def test_a_defect_of_our_own_is_undone_too_and_raised_as_it_is(guest, image, store, monkeypatch):
    def compare(*arguments):
        raise KeyError("defect")

    monkeypatch.setattr(_steps, "compare", compare)
    with pytest.raises(KeyError, match="defect"):
        save(guest, image)
    assert guest.qemu.run_state == "running"
    assert list(store.iterdir()) == []


def test_an_unfinished_image_that_cannot_be_removed_is_named_and_the_guest_goes_on(
    guest, image, monkeypatch
):
    def refuse(partial):
        raise StoreError(f"Removing {partial.path} failed: Read-only file system.")

    guest.qemu.ends_as = "failed"
    monkeypatch.setattr(PartialImage, "discard", refuse)
    failed = fails(guest, image)
    assert ".partial could not be removed" in failed.message
    assert guest.qemu.run_state == "running"


def test_a_save_of_which_pages_are_missing_is_undone_with_both_figures(guest, image, store):
    guest.qemu.ram = {"normal": 3, "duplicate": 61, "total": 64 * 4096}
    before = settings(guest)
    failed = fails(guest, image)
    assert "counted 3 pages with content" in failed.message
    assert "2 present" in failed.message
    assert_as_before(guest, store, before, failed)
