# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole restore over a model QEMU: the order of commands, and how it can fail."""

from __future__ import annotations

import copy
import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _load
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    break_link,
    described,
    model_guest,
    once,
)
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import QmpFailure

SETTINGS = ["migrate-set-parameters", "migrate-set-capabilities"]
LOAD = ["stop", "add-fd", *SETTINGS, "migrate-incoming", *reversed(SETTINGS), "remove-fd"]
STEPS = [*LOAD[:5], "query-migrate"]


def restore(qemu, image, **options):
    return do_restore(qemu.qmp_socket, image, **options)


def fails(qemu, image, **options):
    """The `RestoreFailed` that a restore ends with."""
    with pytest.raises(RestoreFailed) as failed:
        restore(qemu, image, **options)
    return failed.value


def state_of(image):
    return described(image).state


# The order of commands.


def test_the_vcpus_are_held_before_the_load_and_continue_last(qemu, image):
    result = restore(qemu, image)
    assert qemu.commands == [*LOAD, "cont"]
    assert result["guest"]["state"] == qemu.qemu.run_state == "running"


def test_a_guest_that_shall_stay_paused_is_not_continued(qemu, image):
    result = restore(qemu, image, run_state="paused")
    assert qemu.commands == LOAD
    assert result["guest"]["state"] == "paused"
    assert state_of(image) == "ready"


def test_qemus_settings_are_as_before_and_no_fdset_is_left(qemu, image):
    qemu.qemu.settings.capabilities["auto-converge"] = True
    before = copy.deepcopy(qemu.qemu.settings)
    restore(qemu, image)
    assert qemu.qemu.settings == before
    assert qemu.qemu.fdsets == {}


def test_a_failed_load_shall_not_end_qemu(qemu, image):
    restore(qemu, image)
    command = next(c for c in qemu.monitor.commands if c.name == "migrate-incoming")
    assert command.arguments["exit-on-error"] is False


@pytest.mark.parametrize("bypass_cache", [False, True])
def test_the_image_is_given_for_reading_only(qemu, image, bypass_cache):
    given = []
    once(qemu, "migrate-incoming", lambda: given.extend(qemu.qemu.fdsets[0]))
    restore(qemu, image, bypass_cache=bypass_cache)
    assert [(fd.access_mode, fd.direct) for fd in given] == [
        (os.O_RDONLY, direct) for direct in ([False, True] if bypass_cache else [False])
    ]


# The image's state.


def test_the_image_is_spent_before_the_guest_continues(qemu, image):
    seen = []
    once(qemu, "cont", lambda: seen.append(state_of(image)), first=True)
    restore(qemu, image)
    assert seen == ["spent"]


def test_the_image_is_ready_as_long_as_the_guest_is_only_loaded(qemu, image):
    seen = []
    once(qemu, "remove-fd", lambda: seen.append(state_of(image)))
    restore(qemu, image)
    assert seen == ["ready"]


def test_where_it_was_loaded_is_noted_in_the_image(qemu, image):
    restore(qemu, image, run_state="paused")
    assert described(image).loaded_into == qemu.identity


def test_a_cont_that_qemu_refuses_makes_the_image_ready_again(qemu, image):
    qemu.monitor.expect("cont").fails("GenericError", "Failed to get lock on disk.img")
    failed = fails(qemu, image)
    assert state_of(image) == failed.facts["image"]["state"] == "ready"
    assert "Failed to get lock" in failed.message


@pytest.mark.parametrize("first", [True, False], ids=["lost on its way", "answer lost"])
def test_an_image_whose_guest_may_have_run_stays_spent(qemu, image, first):
    once(qemu, "cont", break_link, first=first)
    failed = fails(qemu, image)
    assert state_of(image) == failed.facts["image"]["state"] == "spent"
    assert failed.facts["guest"]["state"] == "unknown"
    assert "whether the guest's vCPUs ran is not known" in failed.message


def test_a_refused_cont_after_which_the_vcpus_are_not_held_keeps_the_image_spent(qemu, image):
    def run_into_a_disk_error():
        qemu.qemu.run_state = "io-error"
        raise QmpFailure("GenericError", "Resetting the Virtual Machine is required")

    once(qemu, "cont", run_into_a_disk_error, first=True)
    failed = fails(qemu, image)
    assert state_of(image) == failed.facts["image"]["state"] == "spent"
    assert failed.facts["guest"]["state"] == "unknown"


def test_an_image_that_cannot_be_marked_keeps_the_vcpus_held(qemu, image, monkeypatch):
    def mark_spent(fd, path, notes):
        raise StoreError(f"{path}: writing the image's state failed: Input/output error.")

    monkeypatch.setattr(_load, "mark_spent", mark_spent)
    failed = fails(qemu, image)
    assert "Input/output error" in failed.message
    assert "cont" not in qemu.commands
    assert state_of(image) == "ready"


def test_an_image_that_cannot_be_removed_is_told_and_the_guest_runs(qemu, image, monkeypatch):
    def unlink(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", unlink)
    failed = fails(qemu, image, remove_image=True)
    assert "could not be removed: Read-only file system" in failed.message
    assert qemu.qemu.run_state == "running"
    assert state_of(image) == "spent"


# Failures while it is loaded.


@pytest.mark.parametrize("command", STEPS[:5])
def test_a_command_that_qemu_refuses_leaves_the_image_ready(qemu, image, command):
    before = image.read_bytes()
    qemu.monitor.expect(command).fails("GenericError", "QEMU's own words")
    failed = fails(qemu, image)
    assert image.read_bytes() == before
    assert "QEMU's own words" in failed.message
    assert failed.facts["image"]["state"] == "ready"
    assert qemu.qemu.fdsets == {}
    assert "cont" not in qemu.commands


@pytest.mark.parametrize("command", STEPS)
def test_a_qemu_that_dies_during_the_load_leaves_the_image_ready(qemu, image, command):
    before = image.read_bytes()
    once(qemu, command, qemu.crash, after="stop")
    failed = fails(qemu, image)
    assert image.read_bytes() == before
    assert failed.facts["image"]["state"] == "ready"


@pytest.mark.parametrize("command", LOAD[1:4])
def test_a_lost_link_ends_the_restore_and_leaves_the_image_ready(qemu, image, command):
    before = image.read_bytes()
    once(qemu, command, break_link)
    assert "broke during" in fails(qemu, image).message
    assert image.read_bytes() == before


def test_a_link_lost_while_it_is_loaded_does_not_end_the_restore(qemu, image):
    once(qemu, "query-migrate", break_link, after="migrate-incoming")
    assert restore(qemu, image)["guest"]["state"] == "running"


def test_a_load_that_failed_is_told_in_qemus_words_and_the_foreign_qemu_is_left_alone(
    tmp_path, image
):
    before = image.read_bytes()
    words = "Unknown savevm section or instance 'serial' 0"
    with model_guest(tmp_path, incoming=True, ends_as="failed", error_description=words) as qemu:
        failed = fails(qemu, image)
        assert qemu.identity  # it still lives
        assert "quit" not in qemu.commands
        assert qemu.qemu.fdsets == {}
    assert words in failed.message
    assert "cannot be used for another try" in failed.message
    assert image.read_bytes() == before


# Refused before anything was touched.


def test_check_mode_sends_only_questions_and_leaves_the_image_as_it_was(qemu, image):
    before = image.read_bytes()
    assert restore(qemu, image, check_mode=True)["changed"] is True
    assert qemu.commands == []
    assert image.read_bytes() == before


def test_a_guest_that_is_not_waiting_is_left_alone(tmp_path, image):
    with model_guest(tmp_path, uuid="11111111-2222-3333-4444-555555555555") as other:
        with pytest.raises(Refused, match="not waiting for an incoming guest"):
            restore(other, image)
        assert other.commands == []


def test_argv_is_refused_while_a_qemu_waits_on_the_socket(qemu, image):
    with pytest.raises(Refused, match="argv would start a second one"):
        restore(qemu, image, argv=("sh",))
    assert qemu.commands == []
    assert state_of(image) == "ready"
