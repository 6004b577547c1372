# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures from publishing on: an image that is ready and a guest that runs never coexist."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import (
    _leave,
    _undo,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._life import (
    mark_spent as really_mark_spent,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import leftovers
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    described,
    once,
)
from ansible_collections.vmfleet.suspend.tests.support.save_checks import (
    assert_as_before,
    fail_fsync,
    fails,
    save,
    settings,
    store_of,
)

# Publishing.


def refuse_rename(monkeypatch):
    def rename(source, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "rename", rename)


@pytest.mark.parametrize("number", [4, 5, 6], ids=["prefix", "magic", "directory"])
def test_a_publish_that_cannot_be_made_durable_is_taken_back(
    guest, image, store, monkeypatch, number
):
    before = settings(guest)
    fail_fsync(monkeypatch, number)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert failed.facts["step"] == "publishing the image"


def test_an_image_with_its_complete_magic_is_demoted_before_the_guest_continues(
    guest, image, store, monkeypatch
):
    """Even if it cannot be removed, nobody may restore it while the guest runs."""
    states = []

    def mark_spent(fd, path, notes):
        states.append((store_of(store), "cont" in guest.commands))
        really_mark_spent(fd, path, notes)
        states.append((store_of(store), "cont" in guest.commands))
        return True

    monkeypatch.setattr(_undo, "mark_spent", mark_spent)
    refuse_rename(monkeypatch)
    before = settings(guest)
    failed = fails(guest, image)
    assert_as_before(guest, store, before, failed)
    assert states == [
        ({".guest.save.partial": "ready"}, False),
        ({".guest.save.partial": "spent"}, False),
    ]


def test_an_image_that_cannot_be_demoted_keeps_the_guest_in_postmigrate(
    guest, image, store, monkeypatch
):
    def mark_spent(fd, path, notes):
        raise StoreError(f"{path}: writing the image's state failed: Input/output error.")

    refuse_rename(monkeypatch)
    monkeypatch.setattr(_undo, "mark_spent", mark_spent)
    failed = fails(guest, image)
    assert guest.qemu.run_state == "postmigrate"
    assert "cont" not in guest.commands
    assert failed.facts["guest"]["state"] == "postmigrate"
    assert "could not be withdrawn, so the guest was left in postmigrate" in failed.message
    assert "remove the image first" in failed.message


def test_a_failed_publish_keeps_the_older_image(guest, image, monkeypatch):
    save(guest, image, guest_state="running")
    older = image.read_bytes()
    refuse_rename(monkeypatch)
    fails(guest, image)
    assert image.read_bytes() == older
    assert leftovers(image.parent) == []


# Leaving.


def assert_image_is_whole(failed, image, state):
    assert "is complete and verified, but" in failed.message
    assert failed.facts["image"] == {"path": str(image), "state": state}
    assert failed.facts["changed"] is True
    assert described(image).state == state


def test_a_qemu_that_ignores_quit_keeps_the_guest_in_postmigrate(guest, image):
    guest.monitor.expect("quit").returns({})
    failed = fails(guest, image)
    assert_image_is_whole(failed, image, "ready")
    assert "still there 0.1 s after quit" in failed.message
    assert "Do not continue it while the image is ready" in failed.message
    assert failed.facts["guest"]["state"] == guest.qemu.run_state == "postmigrate"


def test_a_qemu_that_hangs_up_without_answering_quit_has_quit(guest, image):
    once(guest, "quit", guest.crash, first=True)
    assert save(guest, image)["guest"]["state"] == "stopped"
    assert described(image).quit_by_save is True


@pytest.mark.parametrize("command", ["migrate-set-capabilities", "migrate-set-parameters"])
def test_settings_of_a_qemu_that_ends_anyway_do_not_matter(guest, image, command):
    def refuse():
        guest.monitor.expect(command).fails("GenericError", "no")

    once(guest, "query-migrate", refuse, after="migrate")
    assert save(guest, image)["guest"]["state"] == "stopped"


@pytest.mark.parametrize("guest_state", ["paused", "running"])
def test_settings_of_a_qemu_that_lives_on_do_matter(guest, image, guest_state):
    guest.monitor.expect("remove-fd").fails("GenericError", "File descriptor is in use")
    failed = fails(guest, image, guest_state=guest_state)
    assert_image_is_whole(failed, image, "ready" if guest_state == "paused" else "spent")
    assert "File descriptor is in use" in failed.message
    assert failed.facts["guest"]["state"] == guest.qemu.run_state


def test_a_cont_that_is_refused_leaves_a_spent_image(guest, image):
    guest.monitor.expect("cont").fails("GenericError", "Failed to get lock on disk.img")
    failed = fails(guest, image, guest_state="running")
    assert_image_is_whole(failed, image, "spent")
    assert "continue it with cont" in failed.message
    assert failed.facts["guest"]["state"] == "postmigrate"


def test_an_image_that_cannot_be_marked_spent_keeps_the_guest_in_postmigrate(
    guest, image, monkeypatch
):
    def mark_spent(fd, path, notes):
        raise StoreError(f"{path}: writing the image's state failed: Input/output error.")

    monkeypatch.setattr(_leave, "mark_spent", mark_spent)
    failed = fails(guest, image, guest_state="running")
    assert_image_is_whole(failed, image, "ready")
    assert "cont" not in guest.commands
    assert guest.qemu.run_state == "postmigrate"


def test_a_qemu_that_dies_after_publishing_leaves_a_ready_image(guest, image):
    once(guest, "remove-fd", guest.crash)
    failed = fails(guest, image, guest_state="paused")
    assert_image_is_whole(failed, image, "ready")
    assert failed.facts["guest"]["state"] == "stopped"
    assert "Its QEMU has ended, and the image is ready" in failed.message
