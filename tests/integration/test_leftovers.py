# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead run left, and a next run that wants something else, or finds it changed."""

from __future__ import annotations

import os
import signal

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _leftover
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    image_info,
    look,
)
from ansible_collections.vmfleet.suspend.tests.support.scene import Scene, look_around
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

STOPPED = Blow("_qemu._monitor.Monitor.execute", command="stop")
WRITTEN = Blow("_save._run.write_guest")
NAMELESS = Blow("_saveimage._publish.PartialImage.give_name", before=True)
PUBLISHED = Blow("_save._run.publish_image")
ALL_OFF = [{"capability": name, "state": False} for name in ("mapped-ram", "multifd")]


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    return guest


def die(guest, path, blow, **options):
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    assert run_stricken("save", {**where, **options}, blow).killed


def comes_back(guest, path):
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    guest.wait_passes(2)
    return guest.mismatches == []


@pytest.mark.parametrize("blow", [STOPPED, WRITTEN], ids=["stopped", "written"])
def test_a_save_to_another_path_undoes_what_was_begun_elsewhere(guest, store, blow):
    die(guest, store / "first.save", blow)
    result = do_save(guest.qmp_socket, store / "second.save")
    assert result["plan"]["recovers"]["path"] == str(store / ".first.save.partial")
    assert os.listdir(store) == ["second.save"]
    assert image_info(store / "second.save")["was_running"] is True
    assert comes_back(guest, store / "second.save")


def test_a_file_that_was_removed_by_hand_is_still_remembered_by_qemu(guest, store):
    settings = look(guest.qmp_socket).offer
    die(guest, store / "guest.save", STOPPED)
    os.unlink(store / ".guest.save.partial")
    do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    assert look_around(guest, store) == Scene("running", "spent")
    assert image_info(store / "guest.save")["was_running"] is True
    assert look(guest.qmp_socket).offer == settings
    assert guest.execute("query-fdsets") == []


@pytest.mark.parametrize("blow", [WRITTEN, PUBLISHED], ids=["written", "published"])
def test_the_guest_of_an_image_that_was_moved_away_is_not_continued(guest, store, tmp_path, blow):
    die(guest, store / "guest.save", blow)
    (name,) = os.listdir(store)
    os.rename(store / name, tmp_path / "moved")
    with pytest.raises(Refused, match="must not run twice"):
        do_save(guest.qmp_socket, store / "guest.save")
    assert look_around(guest, store) == Scene("postmigrate", "none")
    guest.execute("cont")
    do_save(guest.qmp_socket, store / "guest.save")
    assert comes_back(guest, store / "guest.save")


def test_a_save_in_another_format_undoes_and_begins_anew(guest, store):
    die(guest, store / "guest.save", WRITTEN)
    result = do_save(guest.qmp_socket, store / "guest.save", image_format="raw")
    assert result["plan"]["recovers"]["remedy"] == "undo"
    assert result["image"]["image_format"] == "raw"
    assert comes_back(guest, store / "guest.save")


def test_a_guest_that_was_paused_before_stays_so_in_the_image(guest, store):
    guest.execute("stop")
    die(guest, store / "guest.save", WRITTEN)
    result = do_save(guest.qmp_socket, store / "guest.save")
    assert result["plan"]["recovers"]["remedy"] == "finish"
    assert image_info(store / "guest.save")["was_running"] is False


def test_a_paused_guest_that_was_written_elsewhere_is_left_for_the_operator(guest, store):
    guest.execute("stop")
    die(guest, store / "first.save", WRITTEN)
    for check_mode in (True, False):
        with pytest.raises(Refused, match=r"same path .*first\.save.* and format"):
            do_save(guest.qmp_socket, store / "second.save", check_mode=check_mode)
    assert look_around(guest, store) == Scene("postmigrate", "unfinished")
    assert do_save(guest.qmp_socket, store / "first.save")["guest"]["state"] == "stopped"


def test_a_whole_image_without_its_name_is_not_thrown_away_for_another_path(guest, store):
    die(guest, store / "first.save", NAMELESS)
    with pytest.raises(Refused, match=r"path .*first\.save and that format"):
        do_save(guest.qmp_socket, store / "second.save")
    assert look_around(guest, store) == Scene("postmigrate", "ready, not named yet")
    with pytest.raises(Refused, match="Run that save again"):
        do_restore(guest.qmp_socket, store / "first.save")


def test_what_does_not_verify_any_more_is_left_for_the_operator(guest, store):
    path = store / "guest.save"
    die(guest, path, WRITTEN)
    os.truncate(store / ".guest.save.partial", os.path.getsize(store / ".guest.save.partial") - 9)
    with pytest.raises(Refused, match=r"end marker .* cut short"):
        do_save(guest.qmp_socket, path)
    assert look_around(guest, store) == Scene("postmigrate", "unfinished")
    guest.execute("cont")
    do_save(guest.qmp_socket, path)
    assert look_around(guest, store) == Scene("ended", "ready")
    assert comes_back(guest, path)


def test_another_guests_unfinished_save_is_not_touched(guest, tiny_guest, store):
    die(guest, store / "guest.save", STOPPED)
    other = tiny_guest()
    other.start()
    with pytest.raises(Refused, match=guest.qmp_socket):
        do_save(other.qmp_socket, store / "guest.save")
    assert look_around(guest, store) == Scene("paused", "unfinished")
    assert other.status() == "running"
    do_save(guest.qmp_socket, store / "guest.save")
    assert look_around(guest, store) == Scene("ended", "ready")


@pytest.mark.parametrize("content", [b"somebody's notes", b"LibvirtQemudSave"])
def test_a_file_in_the_way_that_is_none_of_ours_is_named_and_kept(guest, store, content):
    (store / ".guest.save.partial").write_bytes(content)
    with pytest.raises(Refused, match="is in the way"):
        do_save(guest.qmp_socket, store / "guest.save")
    assert (store / ".guest.save.partial").read_bytes() == content
    assert guest.status() == "running"


def test_a_guest_that_was_continued_by_hand_makes_its_published_image_stale(guest, store):
    path = store / "guest.save"
    settings = look(guest.qmp_socket).offer
    die(guest, path, PUBLISHED)
    guest.execute("cont")
    result = do_save(guest.qmp_socket, path, guest_state="running")
    assert result["plan"]["recovers"]["remedy"] == "tidy"
    assert look_around(guest, store) == Scene("running", "spent")
    assert look(guest.qmp_socket).offer == settings
    assert guest.execute("query-fdsets") == []


def test_capabilities_that_somebody_else_left_on_survive_a_death(guest, store):
    states = [{"capability": "pause-before-switchover", "state": True}]
    guest.execute("migrate-set-capabilities", {"capabilities": states})
    guest.execute("migrate-set-parameters", {"direct-io": True, "max-bandwidth": 12345678})
    settings = look(guest.qmp_socket).offer
    die(guest, store / "guest.save", WRITTEN)
    assert look(guest.qmp_socket).offer != settings
    do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    assert look(guest.qmp_socket).offer == settings


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (STOPPED, Blow("_save._hold.GuestHold.continue_guest", before=True)),
        (STOPPED, Blow("_save._undo._remove_image", before=True)),
        (WRITTEN, Blow("_save._recover.verify_image")),
        (WRITTEN, NAMELESS),
        (NAMELESS, Blow("_save._recover.leave", before=True)),
        (PUBLISHED, Blow("_qemu._monitor.Monitor.execute", command="quit", before=True)),
    ],
)
def test_a_run_that_dies_while_it_recovers_is_recovered_from_as_well(guest, store, first, second):
    path = store / "guest.save"
    die(guest, path, first)
    die(guest, path, second)
    assert look_around(guest, store).is_safe
    do_save(guest.qmp_socket, path)
    assert look_around(guest, store) == Scene("ended", "ready")
    assert comes_back(guest, path)


def test_a_guest_held_after_its_save_is_let_go_as_the_next_run_asks(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, guest_state="paused")
    again = do_save(guest.qmp_socket, path, guest_state="paused")
    assert again["changed"] is False
    assert look_around(guest, store) == Scene("postmigrate", "ready")
    assert do_save(guest.qmp_socket, path)["changed"] is True
    assert look_around(guest, store) == Scene("ended", "ready")
    assert do_save(guest.qmp_socket, path)["changed"] is False
    assert comes_back(guest, path)


def let_it_run_and_hold_it_again(guest, directory):
    """What an operator and another program might do between two runs."""
    guest.execute("cont")
    guest.wait_passes(1)
    guest.execute("migrate-set-capabilities", {"capabilities": ALL_OFF})
    guest.execute("stop")
    guest.execute("migrate", {"uri": f"file:{directory}/elsewhere"})
    guest._wait(lambda: guest.status() == "postmigrate", 10, "be written elsewhere")


@pytest.mark.parametrize("blow", [STOPPED, WRITTEN], ids=["stopped", "written"])
def test_a_guest_that_somebody_migrated_since_is_not_continued(guest, store, tmp_path, blow):
    die(guest, store / "guest.save", blow)
    let_it_run_and_hold_it_again(guest, tmp_path)
    with pytest.raises(Refused, match="has run since the image was taken"):
        do_save(guest.qmp_socket, store / "guest.save")
    assert look_around(guest, store) == Scene("postmigrate", "unfinished")
    guest.execute("cont")
    do_save(guest.qmp_socket, store / "guest.save")
    assert comes_back(guest, store / "guest.save")


def test_a_migration_that_somebody_began_since_is_not_cancelled(guest, store, tmp_path):
    die(guest, store / "guest.save", STOPPED)
    guest.execute("cont")
    guest.execute("migrate-set-capabilities", {"capabilities": ALL_OFF})
    guest.execute("migrate-set-parameters", {"max-bandwidth": 1 << 16})
    guest.execute("migrate", {"uri": f"file:{tmp_path}/elsewhere"})
    with pytest.raises(Refused, match="A migration of the guest is under way"):
        do_save(guest.qmp_socket, store / "guest.save")
    assert guest.execute("query-migrate")["status"] == "active"


def test_a_copy_whose_guest_went_on_does_not_continue_it_later(guest, store):
    """Its guest was saved elsewhere since, and must not run beside that image."""
    do_save(guest.qmp_socket, store / "copy.save", guest_state="running")
    do_save(guest.qmp_socket, store / "real.save", guest_state="paused")
    with pytest.raises(Refused, match="postmigrate"):
        do_save(guest.qmp_socket, store / "copy.save", guest_state="running")
    assert look_around(guest, store) == Scene("postmigrate", "spent, ready")


def test_an_older_image_is_spent_before_a_newer_save_can_lose_the_guest(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    guest.start()  # anew, and not from its image
    guest.wait_passes(1)
    die(guest, path, WRITTEN)
    guest.kill()
    with pytest.raises(Refused, match="is spent"):
        do_save(guest.qmp_socket, path)
    assert look_around(guest, store) == Scene("ended", "spent")


def test_another_image_that_took_the_name_meanwhile_is_not_replaced(guest, tiny_guest, store):
    path = store / "guest.save"
    other = tiny_guest()
    other.start()
    other.wait_ready()
    do_save(other.qmp_socket, store / "other.save")
    die(guest, path, WRITTEN)
    os.rename(store / "other.save", path)
    with pytest.raises(Refused, match="is taken by a ready image"):
        do_save(guest.qmp_socket, path)
    assert image_info(path)["uuid"] == other.uuid
    assert guest.status() == "postmigrate"
    os.rename(path, store / "other.save")
    assert do_save(guest.qmp_socket, path)["guest"]["state"] == "stopped"


def test_a_whole_image_whose_guest_was_started_anew_is_not_published(guest, store):
    die(guest, store / "guest.save", NAMELESS)
    guest.kill()
    guest.start()
    guest.wait_passes(1)
    result = do_save(guest.qmp_socket, store / "guest.save", guest_state="running")
    assert result["plan"]["recovers"]["remedy"] == "remove"
    assert look_around(guest, store) == Scene("running", "spent")


def test_a_path_may_be_written_in_several_ways(guest, store):
    die(guest, f"{store}//guest.save", WRITTEN)
    result = do_save(guest.qmp_socket, f"{store}/./guest.save")
    assert result["plan"]["recovers"]["remedy"] == "finish"
    assert result["image"]["path"] == str(store / "guest.save")


def test_a_run_that_recovers_and_is_refused_then_says_what_it_did(guest, store, tmp_path):
    die(guest, store / "guest.save", STOPPED)
    with pytest.raises(SaveFailed, match=r"domain_xml_file .* cannot be read") as failed:
        do_save(guest.qmp_socket, store / "guest.save", domain_xml_file=str(tmp_path / "no.xml"))
    assert failed.value.facts["guest"]["state"] == guest.status() == "running"
    assert "continued the guest" in failed.value.facts["actions"]


def test_a_published_image_does_not_cost_a_guest_that_has_run_since(guest, store, tmp_path):
    die(guest, store / "guest.save", PUBLISHED)
    let_it_run_and_hold_it_again(guest, tmp_path)
    with pytest.raises(Refused, match="has run since the image was taken"):
        do_save(guest.qmp_socket, store / "guest.save")
    assert look_around(guest, store) == Scene("postmigrate", "ready")


@pytest.mark.parametrize("image_format", ["raw", "gzip"])
def test_a_stream_that_cannot_be_compared_is_written_anew(guest, store, image_format):
    die(guest, store / "guest.save", WRITTEN, image_format=image_format)
    result = do_save(guest.qmp_socket, store / "guest.save", image_format=image_format)
    assert result["plan"]["recovers"]["remedy"] == "undo"
    assert comes_back(guest, store / "guest.save")


def test_a_signal_while_a_dead_run_is_undone_ends_the_run_there(guest, store):
    """And no new save follows that nobody could stop any more."""
    die(guest, store / "guest.save", STOPPED)
    execute = Monitor.execute

    async def interrupt_at_cont(self, command, *arguments, **named):
        if command == "cont":
            os.kill(os.getpid(), signal.SIGTERM)
        return await execute(self, command, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "execute", interrupt_at_cont)
        with pytest.raises(VmfleetError, match=r"SIGTERM|signal"):
            do_save(guest.qmp_socket, store / "guest.save", signals=True)
    assert look_around(guest, store) == Scene("running", "none")


def test_an_unfinished_file_of_another_host_is_not_taken_for_a_dead_ones(guest, store, monkeypatch):
    die(guest, store / "guest.save", WRITTEN)
    guest.kill()
    monkeypatch.setattr(_leftover, "host_id", lambda: "another host of the same store")
    with pytest.raises(Refused):
        do_save(guest.qmp_socket, store / "guest.save")
    assert os.listdir(store) == [".guest.save.partial"]


def test_a_guest_that_was_paused_before_and_continued_by_hand_is_no_failure(guest, store):
    guest.execute("stop")
    die(guest, store / "guest.save", WRITTEN)
    guest.execute("cont")
    do_save(guest.qmp_socket, store / "guest.save")
    assert comes_back(guest, store / "guest.save")


def test_a_guest_whose_restore_died_and_that_was_continued_by_hand_can_be_saved(guest, store):
    path = store / "guest.save"
    do_save(guest.qmp_socket, path)
    guest.start(incoming=True)
    where = {"path": str(path), "qmp_socket": guest.qmp_socket}
    loaded = Blow("_restore._load.note_loaded", before=True)
    assert run_stricken("restore", where, loaded).killed
    guest.execute("cont")
    result = do_save(guest.qmp_socket, path)
    assert result["plan"]["recovers"]["remedy"] == "tidy"
    assert comes_back(guest, path)
