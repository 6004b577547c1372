# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules for a whole host as Ansible runs them, and what is told of guests beforehand."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.vmfleet.suspend.tests.support.bare_module import run_alone
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, goes_on, image_info
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

from .test_modules import run_module

NVME = ("-drive", "if=none,id=n0,driver=null-co", "-device", "nvme,drive=n0,serial=1,addr=0x10")


@pytest.fixture
def place(tmp_path):
    """Store and journal of a test's own."""
    (tmp_path / "store").mkdir(mode=0o700)
    return {"store": str(tmp_path / "store"), "journal": str(tmp_path / "journal")}


def test_a_host_goes_through_all_three_modules(tiny_guest, place):
    guests = [tiny_guest(name=name).start() for name in ("web01", "db01")]
    for guest in guests:
        guest.wait_passes(1)
    found = {"qmp_sockets": [guest.qmp_socket for guest in guests], **place}
    wishes = [{"name": "db01", "priority": 5, "allow": ["lose_bitmaps", "changed_disks"]}]

    planned = run_module("qemu_host_suspend", "--check", guests=wishes, **found)
    assert [one["name"] for one in planned["plan"]["guests"]] == ["web01", "db01"]
    assert (planned["changed"], os.listdir(place["store"])) == (True, [])
    suspended = run_module("qemu_host_suspend", guests=wishes, **found)
    assert suspended["changed"] is True
    assert sorted(os.listdir(place["store"])) == [os.path.basename(p) for p in suspended["images"]]
    assert run_module("qemu_host_suspend", guests=wishes, **found)["changed"] is False

    told = run_module("qemu_guest_info", **{**found, "store": f"{place['store']}/"})
    assert (told["guests"], told["journal"]["states"]) == ([], {"verified": 2})

    resumed = run_module("qemu_host_resume", guests=wishes, **place)
    assert resumed["journal"]["closed"] == "resumed"
    assert all(goes_on(guest) for guest in guests)
    assert run_module("qemu_host_resume", **place)["changed"] is False


@pytest.mark.full
def test_a_failure_tells_of_every_guest_and_of_the_journal(tiny_guest, place, small_store):
    guests = [tiny_guest(name=name).start() for name in ("web01", "db01")]
    for guest in guests:
        guest.wait_passes(1)
    found = {"qmp_sockets": [guest.qmp_socket for guest in guests], **place}
    wishes = [{"name": "db01", "path": str(small_store / "db01.save"), "policy": "save"}]
    result = run_module("qemu_host_suspend", guests=wishes, **found)
    assert "db01: " in result["msg"]
    assert "the journal is " in result["msg"]
    states = {guest["name"]: guest["state"] for guest in result["guests"]}
    assert states == {"web01": "verified", "db01": "failed"}
    assert result["changed"] is True
    assert result["journal"]["closed"] is None
    assert goes_on(guests[1])
    run_module("qemu_host_resume", **place)
    assert goes_on(guests[0])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("qemu_host_suspend", {}, "Name the guests of this host"),
        ("qemu_host_suspend", {"uri": "qemu://elsewhere/system"}, "daemon of another host"),
        ("qemu_host_suspend", {"qmp_sockets": ["/x"], "guests": [{"priority": 1}]}, "missing"),
        ("qemu_host_resume", {"journal": "here"}, "journal must be an absolute path"),
        ("qemu_guest_info", {"store": "here"}, "store must be an absolute path"),
    ],
)
def test_options_that_make_no_sense_are_refused(place, name, options, words):
    result = run_alone(name, **{**place, **options})
    assert result["failed"] and words in result["msg"]


@pytest.mark.full
def test_guests_are_told_with_what_their_images_take_and_why_not(tiny_guest, place, tmp_path):
    plain = tiny_guest(name="plain", memory_mib=256, pattern_mib=64)
    stuck = tiny_guest(name="stuck", extra=NVME)
    for guest in (plain, stuck):
        guest.start()
        guest.wait_passes(1)
    silent, dead = tmp_path / "silent", tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as gone:
        listening.bind(str(silent))
        listening.listen()
        gone.bind(str(dead))
        gone.close()
        patterns = [plain.qmp_socket, f"{stuck.directory}/*", str(silent), str(dead), "/none/*"]
        told = run_module("qemu_guest_info", qmp_sockets=patterns, **place)
    found = {guest["name"]: guest for guest in told["guests"]}
    assert sorted(found) == ["plain", "stuck"]
    assert (found["plain"]["can_save"], found["plain"]["uuid"]) == (True, plain.uuid)
    assert found["plain"]["pid"] == plain.pid
    assert str(plain.disk_path) in found["plain"]["disks"]
    assert found["stuck"]["can_save"] is False
    assert "nvme" in found["stuck"]["cannot_save_reason"]
    assert any("nvme" in words for words in found["stuck"]["migration_blockers"])
    assert {one["path"] for one in told["unanswered"]} == {str(silent), str(dead)}

    path = os.path.join(place["store"], "plain.save")
    do_save(plain.qmp_socket, path)
    estimate = found["plain"]["estimated_bytes"]
    taken = image_info(path)["allocated_bytes"]
    assert taken <= estimate < taken + (32 << 20)


@pytest.mark.full
def test_what_runs_that_died_left_is_told(tiny_guest, place):
    guest = tiny_guest(name="web01").start()
    guest.wait_passes(1)
    path = os.path.join(place["store"], "web01.save")
    options = {"path": path, "qmp_socket": guest.qmp_socket}
    assert run_stricken("save", options, Blow("_save._run.begin_image")).killed
    (left,) = run_module("qemu_guest_info", **place)["leftovers"]
    assert (left["kind"], left["held_by_pid"]) == ("unfinished", None)
    assert left["path"] == os.path.join(place["store"], ".web01.save.partial")
    assert left["name"] == "web01"

    do_save(guest.qmp_socket, path)
    guest.start()  # by somebody else, afresh
    guest.wait_passes(1)
    told = run_module("qemu_guest_info", qmp_sockets=[guest.qmp_socket], **place)
    assert [(one["kind"], one["path"]) for one in told["leftovers"]] == [("stale", path)]
