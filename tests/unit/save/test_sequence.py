# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole save over a model QEMU: the order of commands, and every way in which it can fail."""

from __future__ import annotations

import copy
import errno
import os
import signal

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import (
    describe_target,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _migration
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import (
    _leave,
    _steps,
    _undo,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, leftovers
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    break_link,
    model_guest,
    once,
    write_short_stream,
    write_stream,
)
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import CAPABILITIES

BEFORE_MIGRATE = ["migrate-set-parameters", "migrate-set-capabilities", "add-fd"]
PUT_BACK = ["remove-fd", "migrate-set-capabilities", "migrate-set-parameters"]
NO_SPACE = "Unable to write to file: No space left on device"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def image(store):
    return store / "guest.save"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses that only a real QEMU needs."""
    monkeypatch.setattr(_migration, "_CALM_SECONDS", 0.01)
    monkeypatch.setattr(_leave, "_QUIT_SECONDS", 0.1)
    monkeypatch.setattr(_undo, "_SETTLE_SECONDS", 0.5)


@pytest.fixture
def guest(tmp_path):
    with model_guest(tmp_path) as guest:
        yield guest


@pytest.fixture
def paused_guest(tmp_path):
    with model_guest(tmp_path, run_state="paused") as guest:
        yield guest


def save(guest, image, **options):
    return do_save(guest.qmp_socket, image, **options)


def fails(guest, image, **options):
    """The `SaveFailed` that a save ends with."""
    with pytest.raises(SaveFailed) as failed:
        save(guest, image, **options)
    return failed.value


def settings(guest):
    return copy.deepcopy(guest.qemu.settings)


# The order of commands.


@pytest.mark.parametrize(
    ("guest_state", "end"),
    [
        ("stopped", [*PUT_BACK, "quit"]),
        ("paused", PUT_BACK),
        ("running", [*PUT_BACK, "cont"]),
    ],
)
def test_the_vcpus_stop_last_of_all_and_nothing_comes_between_that_and_migrate(
    guest, image, guest_state, end
):
    result = save(guest, image, guest_state=guest_state)
    assert guest.commands == [*BEFORE_MIGRATE, "stop", "migrate", *end]
    assert result["changed"] is True


def test_a_guest_that_was_paused_is_not_stopped(paused_guest, image):
    save(paused_guest, image)
    assert paused_guest.commands == [*BEFORE_MIGRATE, "migrate", *PUT_BACK, "quit"]
    assert describe_target(str(image)).was_running is False


def test_every_capability_that_qemu_offers_is_set_by_name(guest, image):
    guest.qemu.settings.capabilities["auto-converge"] = True
    save(guest, image)
    command = next(c for c in guest.monitor.commands if c.name == "migrate-set-capabilities")
    states = {entry["capability"]: entry["state"] for entry in command.arguments["capabilities"]}
    assert states.keys() == CAPABILITIES.keys()
    assert {name for name, on in states.items() if on} == {"events", "mapped-ram", "multifd"}


@pytest.mark.parametrize("guest_state", ["paused", "running"])
def test_a_qemu_that_lives_on_has_its_settings_back_and_no_fdset(guest, image, guest_state):
    guest.qemu.settings.capabilities["auto-converge"] = True
    guest.qemu.settings.parameters["max-bandwidth"] = 12345
    before = settings(guest)
    save(guest, image, guest_state=guest_state)
    assert settings(guest) == before
    assert guest.qemu.fdsets == {}


def test_the_stream_begins_where_the_header_says(guest, image):
    offsets = []

    def writer(fd, offset_bytes):
        offsets.append(offset_bytes)
        write_stream(fd, offset_bytes)

    guest.qemu.writer = writer
    save(guest, image)
    assert offsets == [describe_target(str(image)).data_offset_bytes]
    assert offsets[0] % 4096 == 0


def test_bypass_cache_gives_two_descriptors_and_direct_io(guest, image):
    given = []
    once(guest, "migrate", lambda: given.extend(guest.qemu.fdsets[0]))
    save(guest, image, bypass_cache=True)
    assert [(fd.access_mode, fd.direct) for fd in given] == [
        (os.O_WRONLY, False),
        (os.O_WRONLY, True),
    ]
    command = next(c for c in guest.monitor.commands if c.name == "migrate-set-parameters")
    assert command.arguments["direct-io"] is True
    assert not guest.qemu.crashed


# What is in the store meanwhile.


def test_the_beginning_of_the_image_is_there_before_qemu_hears_of_anything(guest, image, store):
    seen = []
    once(guest, "migrate-set-parameters", lambda: seen.append(store_of(store)))
    save(guest, image)
    assert seen == [{".guest.save.partial": "partial"}]


def test_the_image_is_published_before_qemu_is_quit(guest, image, store):
    seen = []
    # The last command before quit, as the model's process ends with that one.
    guest.monitor.expect("quit").reactions.append(lambda monitor, tag: seen.append(store_of(store)))
    with pytest.raises(SaveFailed):
        save(guest, image)
    assert seen == [{"guest.save": "ready"}]


def test_the_image_is_spent_before_the_guest_continues(guest, image, store):
    seen = []
    once(guest, "cont", lambda: seen.append(store_of(store)))
    save(guest, image, guest_state="running")
    assert seen == [{"guest.save": "spent"}]


def store_of(store):
    return {path.name: describe_target(str(path)).state for path in store.iterdir()}


# Failures before the image is published: as if nothing had been tried.

FAILURES = [
    ("migrate-set-parameters", "There's a migration process in progress", "capabilities", False),
    ("migrate-set-capabilities", "There's a migration process in progress", "capabilities", False),
    ("add-fd", "No file descriptor supplied via SCM_RIGHTS", "handing the image", False),
    ("stop", "Could not flush the disks", "stopping the vCPUs", True),
    ("migrate", "State blocked by non-migratable device", "writing the guest's state", True),
]


def assert_as_before(guest, store, before, failed, run_state="running"):
    assert guest.qemu.run_state == run_state
    assert failed.facts["guest"]["state"] == run_state
    assert f"The guest is {run_state} as before, and nothing was left behind." in failed.message
    assert list(store.iterdir()) == []
    assert guest.qemu.fdsets == {}
    assert settings(guest) == before


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


@pytest.mark.parametrize("run_state", ["running", "paused"])
def test_an_image_that_does_not_pass_verification_is_thrown_away(tmp_path, image, store, run_state):
    with model_guest(tmp_path, run_state=run_state, writer=write_short_stream) as guest:
        before = settings(guest)
        failed = fails(guest, image)
        assert_as_before(guest, store, before, failed, run_state)
    assert failed.facts["step"] == "verifying the image"
    assert failed.facts["offset_bytes"] > 0


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


def fail_fsync(monkeypatch, *numbers):
    """Let the calls of os.fsync with these numbers fail, counted from 1."""
    real, count = os.fsync, [0]

    def fsync(fd):
        count[0] += 1
        if count[0] in numbers:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


# Interrupted by a signal, at each step.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("command", "after"),
    [
        ("migrate-set-parameters", None),
        ("add-fd", None),
        ("stop", None),
        ("query-block-jobs", "stop"),
        ("migrate", None),
        ("query-migrate", "migrate"),
    ],
)
def test_a_signal_undoes_the_save_at_any_step(guest, image, store, command, after, number):
    guest.qemu.ends_as = "never"
    before = settings(guest)
    once(guest, command, lambda: os.kill(os.getpid(), number), after)
    failed = fails(guest, image, signals=True)
    assert_as_before(guest, store, before, failed)
    assert "interrupted by a signal" in failed.message


def test_the_way_back_is_not_interrupted(guest, image, store):
    guest.qemu.ends_as = "never"
    before = settings(guest)
    for command in ("migrate", "migrate_cancel", "remove-fd", "cont"):
        once(guest, command, lambda: os.kill(os.getpid(), signal.SIGTERM))
    failed = fails(guest, image, signals=True)
    assert_as_before(guest, store, before, failed)


@pytest.mark.parametrize("command", ["remove-fd", "quit"])
def test_after_publishing_a_signal_changes_nothing_any_more(guest, image, command):
    if command == "remove-fd":
        once(guest, command, lambda: os.kill(os.getpid(), signal.SIGTERM))
    else:
        once(guest, "query-fdsets", lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = save(guest, image, signals=True)
    assert result["guest"]["state"] == "stopped"
    assert describe_target(str(image)).state == "ready"


# QEMU dies, or the link to it.

STEPS = [
    ("migrate-set-parameters", None),
    ("migrate-set-capabilities", None),
    ("add-fd", None),
    ("stop", None),
    ("query-status", "stop"),
    ("query-block-jobs", "stop"),
    ("migrate", None),
]


@pytest.mark.parametrize(("command", "after"), [*STEPS, ("query-migrate", "migrate")])
def test_a_qemu_that_dies_is_reported_as_crashed_never_as_saved(
    guest, image, store, command, after
):
    once(guest, command, guest.crash, after)
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "crashed"
    assert "the guest's RAM is lost" in failed.message
    assert list(store.iterdir()) == []


def test_a_qemu_that_dies_while_it_settles_is_reported_as_crashed(guest, image, store):
    once(guest, "query-migrate", lambda: once(guest, "query-status", guest.crash), "migrate")
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "crashed"
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(("command", "after"), STEPS)
def test_a_lost_link_is_mended_to_continue_the_guest(guest, image, store, command, after):
    before = settings(guest)
    once(guest, command, break_link, after)
    failed = fails(guest, image)
    # A set whose number was in the lost answer goes away with the client, which no model does.
    if command == "add-fd":
        guest.qemu.fdsets.clear()
    assert_as_before(guest, store, before, failed)
    assert f"broke during {command}" in failed.message


@pytest.mark.parametrize(("command", "after"), [s for s in STEPS if s[0] != "stop"])
def test_a_lost_link_does_not_continue_a_guest_that_was_paused(
    paused_guest, image, store, command, after
):
    once(paused_guest, command, break_link, after and "add-fd")
    fails(paused_guest, image)
    assert paused_guest.qemu.run_state == "paused"
    assert "cont" not in paused_guest.commands


def test_a_link_lost_during_the_migration_does_not_end_the_save(guest, image):
    once(guest, "query-migrate", break_link, "migrate")
    assert save(guest, image)["changed"] is True
    assert describe_target(str(image)).state == "ready"


def test_a_monitor_that_never_comes_back_leaves_the_state_unknown(guest, image, store, monkeypatch):
    monkeypatch.setattr(_undo, "STOP_SECONDS", 0)

    def hang_up():
        guest.monitor._listener.shutdown(2)
        raise ConnectionAbortedError

    once(guest, "stop", hang_up)
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "unknown"
    assert f"{guest.qmp_socket} does not answer" in failed.message
    assert list(store.iterdir()) == []


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
    seen = []
    once(guest, "remove-fd", lambda: seen.append(states))
    states = []
    real_spent = _undo.mark_spent

    def mark_spent(fd, path, notes):
        states.append((store_of(store), "cont" in guest.commands))
        real_spent(fd, path, notes)
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
    assert "Remove the image first" in failed.message


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
    assert describe_target(str(image)).state == state


def test_a_qemu_that_ignores_quit_keeps_the_guest_in_postmigrate(guest, image):
    guest.monitor.expect("quit").returns({})
    failed = fails(guest, image)
    assert_image_is_whole(failed, image, "ready")
    assert "still there 0.1 s after quit" in failed.message
    assert "Do not continue it while the image is ready" in failed.message
    assert failed.facts["guest"]["state"] == guest.qemu.run_state == "postmigrate"


def test_a_qemu_that_hangs_up_without_answering_quit_has_quit(guest, image):
    once(guest, "query-fdsets", lambda: None)
    guest.monitor.expect("quit").reactions.append(lambda monitor, tag: guest.crash())
    assert save(guest, image)["guest"]["state"] == "stopped"
    assert describe_target(str(image)).quit_by_save is True


@pytest.mark.parametrize("command", ["remove-fd", "migrate-set-parameters"])
def test_settings_of_a_qemu_that_ends_anyway_do_not_matter(guest, image, command):
    def refuse():
        guest.monitor.expect(command).fails("GenericError", "no")

    once(guest, "query-migrate", refuse, "migrate")
    assert save(guest, image)["guest"]["state"] == "stopped"


@pytest.mark.parametrize("guest_state", ["paused", "running"])
def test_settings_of_a_qemu_that_lives_on_do_matter(guest, image, guest_state):
    guest.monitor.expect("remove-fd").fails("GenericError", "File descriptor is in use")
    failed = fails(guest, image, guest_state=guest_state)
    assert_image_is_whole(failed, image, "ready")
    assert "File descriptor is in use" in failed.message
    assert "cont" not in guest.commands


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


# Refused before anything was touched.


def test_what_is_refused_touches_neither_guest_nor_store(guest, image, store):
    guest.qemu.blocked_reasons = ["non-migratable device: nvme"]
    with pytest.raises(Refused, match="nvme"):
        save(guest, image)
    assert guest.commands == []
    assert list(store.iterdir()) == []


def test_check_mode_sends_only_questions_and_writes_nothing(guest, image, store):
    assert save(guest, image, check_mode=True)["changed"] is True
    assert guest.commands == []
    assert list(store.iterdir()) == []


def test_a_defect_of_our_own_is_undone_too_and_raised_as_it_is(guest, image, store, monkeypatch):
    def compare(*arguments):
        raise KeyError("defect")

    monkeypatch.setattr(_steps, "compare", compare)
    with pytest.raises(KeyError, match="defect"):
        save(guest, image)
    assert guest.qemu.run_state == "running"
    assert list(store.iterdir()) == []
