# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole host: eight guests suspended and resumed, and what may come in between."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    MonitorError,
    Refused,
    StoreError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import (
    _discovery,
    _journal_file,
    _saving,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import suspend_request
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._outcome import HostFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _leave, _run
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    goes_on,
    image_info,
)
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_MANY
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host, by_name

EIGHT = 8
NVME = ("-drive", "if=none,id=n0,driver=null-co", "-device", "nvme,drive=n0,serial=1,addr=0x10")


@pytest.fixture
def guests(tiny_guest):
    """Eight, each of which has filled its memory."""
    return started(tiny_guest(name=f"g{number}", **ONE_OF_MANY) for number in range(EIGHT))


def started(guests):
    all_of_them = [guest.start() for guest in guests]
    for guest in all_of_them:
        guest.wait_passes(1)
    return all_of_them


@pytest.fixture
def host(guests, tmp_path):
    return Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])


def states(result):
    return {name: guest["state"] for name, guest in by_name(result).items()}


def all_go_on(guests):
    return all(goes_on(guest) for guest in guests)


def images_in(host):
    return sorted(path.name for path in host.store.iterdir() if path.suffix == ".save")


def test_all_are_suspended_and_resumed_and_a_second_run_of_either_changes_nothing(guests, host):
    foreseen = host.suspend(check_mode=True)
    assert (images_in(host), host.journal.exists()) == ([], False)
    suspended = host.suspend()
    assert suspended["changed"] is foreseen["changed"] is True
    assert suspended["diff"] == foreseen["diff"]
    assert set(states(suspended).values()) == {"verified"}
    assert not any(guest.alive() for guest in guests)
    assert images_in(host) == sorted(f"{guest.name}-{guest.uuid}.save" for guest in guests)

    again = host.suspend()
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})
    assert set(states(again).values()) == {"verified"}

    foreseen = host.resume(check_mode=True)
    assert not any(guest.alive() for guest in guests)
    resumed = host.resume()
    assert resumed["diff"] == foreseen["diff"]
    assert set(states(resumed).values()) == {"running"}
    assert resumed["journal"]["closed"] == "resumed"
    assert all_go_on(guests)

    again = host.resume()
    assert (again["changed"], again["journal"]["closed"]) == (False, "resumed")
    assert all_go_on(guests)


@pytest.mark.full
def test_what_a_suspend_took_is_what_the_next_plan_predicts(guests, host):
    first = host.suspend()
    assert {guest["predicted_seconds"] for guest in first["guests"]} == {None}
    host.resume()
    second = host.suspend(check_mode=True)
    (store,) = second["plan"]["stores"]
    assert store["measured_bytes_per_second"] == round(
        sum(guest["bytes"] for guest in first["guests"])
        / sum(entry["actual_seconds"] for entry in journal_of(host)["entries"])
    )
    assert all(plan["predicted_seconds"] > 0 for plan in second["plan"]["guests"])
    assert second["plan"]["predicted_seconds"] > 0
    assert all_go_on(guests)


def journal_of(host):
    (path,) = host.journal.glob("*.json")
    return json.loads(path.read_text())


def slow_store(host, bytes_per_second):
    """As if an earlier suspend had measured the store: one guest's save."""
    host.suspend(include=["g0"])
    host.resume()
    (path,) = host.journal.glob("*.json")
    journal = json.loads(path.read_text())
    (entry,) = journal["entries"]
    entry["actual_seconds"] = entry["bytes"] / bytes_per_second
    path.write_text(json.dumps(journal))


@pytest.mark.full
def test_a_window_that_only_five_of_eight_can_meet(guests, host):
    slow_store(host, 10 << 20)
    plan = host.suspend(check_mode=True, max_concurrent=1)["plan"]
    each = plan["guests"][0]["predicted_seconds"]
    window = int(each * 5 + each / 2)

    # By its own it touches nobody.
    with pytest.raises(Refused, match="does not fit into the window") as refused:
        host.suspend(max_concurrent=1, window_seconds=window)
    assert all_go_on(guests)
    left_out = {one["name"] for one in refused.value.facts["plan"]["guests"]} - {
        one["name"] for one in refused.value.facts["plan"]["guests"] if one["action"] == "save"
    }
    assert len(left_out) == 3

    policies = [{"name": guest.name, "policy": "leave"} for guest in guests]
    policies[7]["priority"] = 1  # last to be given up
    result = host.suspend(max_concurrent=1, window_seconds=window, guests=policies)
    found = states(result)
    assert sorted(found.values()) == ["left"] * 3 + ["verified"] * 5
    assert found["g7"] == "verified"
    assert all(guest.alive() == (found[guest.name] == "left") for guest in guests)
    assert all(goes_on(guest) for guest in guests if guest.alive())

    # What was left is saved by a later run that has the time.
    assert set(states(host.suspend()).values()) == {"verified"}
    host.resume()
    assert all_go_on(guests)


def test_a_guest_that_cannot_be_saved_stops_the_run_before_it_begins(tiny_guest, tmp_path):
    guests = started([tiny_guest(name="plain"), tiny_guest(name="nvme", extra=NVME)])
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    with pytest.raises(Refused, match=r"nothing was touched.*nvme: .*nvme.*policy"):
        host.suspend()
    assert all_go_on(guests)

    wishes = [{"name": "nvme", "policy": "leave"}]
    assert states(host.suspend(guests=wishes)) == {"plain": "verified", "nvme": "left"}
    assert goes_on(guests[1])
    assert host.suspend(guests=wishes)["changed"] is False
    host.resume()
    assert all_go_on(guests)


def test_a_guest_whose_qemu_is_killed_in_the_middle_is_lost_and_nobody_says_otherwise(
    tiny_guest, tmp_path, monkeypatch
):
    guests = started(tiny_guest(name=name) for name in ("well", "doomed"))
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    host.suspend()
    host.resume()  # an older image of each, which is spent

    written = vars(_run)["write_guest"]

    async def killed(session):
        if session.plan.name == "doomed":
            guests[1].kill()
        return await written(session)

    with monkeypatch.context() as patch:
        patch.setattr(_run, "write_guest", killed)
        with pytest.raises(HostFailed, match=r"1 of 2 guests are suspended.*doomed: .*RAM is lost"):
            host.suspend()

    again = by_name(host.suspend())
    assert (again["well"]["state"], again["doomed"]["state"]) == ("verified", "crashed")
    stale = host.store / f"doomed-{guests[1].uuid}.save"
    assert again["doomed"]["stale_image"] == str(stale)
    assert image_info(stale)["state"] == "spent"

    with pytest.raises(HostFailed, match=r"1 of 2 guests run again.*doomed: .*its RAM is lost"):
        host.resume()
    assert goes_on(guests[0])
    assert not guests[1].alive()
    assert host.resume()["changed"] is False


@pytest.mark.full
def test_a_reboot_between_suspend_and_resume(guests, host):
    host.suspend()
    # Every process has ended and /run is empty; images and journal are there.
    assert not any(guest.alive() for guest in guests)
    assert not any(os.path.exists(guest.qmp_socket) for guest in guests)
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_one_tenant_can_be_taken_out_and_brought_back_first(guests, host):
    result = host.suspend(include=["g[0-3]"], exclude=["g3"])
    assert states(result) == {"g0": "verified", "g1": "verified", "g2": "verified"}
    assert all_go_on(guests[3:])
    host.suspend()
    part = host.resume(include=["g0"])
    assert (states(part), part["journal"]["closed"]) == ({"g0": "running"}, None)
    assert goes_on(guests[0])
    assert not guests[1].alive()

    # A suspend before all are back goes on in the same journal.
    again = host.suspend()
    assert by_name(again)["g0"]["changed"] is True
    assert again["journal"]["id"] == part["journal"]["id"]
    assert host.resume()["journal"]["closed"] == "resumed"
    assert all_go_on(guests)


def test_a_monitor_that_somebody_else_holds_stops_the_run_and_a_dead_one_does_not(
    tiny_guest, tmp_path, monkeypatch
):
    monkeypatch.setattr(_discovery, "_GREETING_SECONDS", 0.5)
    guest = tiny_guest(name="held").start()
    guest.wait_passes(1)
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(dead))
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket, str(dead)])
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(guest.qmp_socket)
        with pytest.raises(Refused, match=r"nothing was touched.*sent no greeting"):
            host.suspend()
    assert goes_on(guest)
    assert states(host.suspend()) == {"held": "verified"}
    host.resume()
    assert goes_on(guest)


def test_a_run_that_a_signal_ends_puts_back_whom_it_was_saving(guests, host):
    slow = [{"name": guest.name, "max_bandwidth": 1 << 20} for guest in guests]

    async def interrupted():
        request = suspend_request(host.suspend_params(guests=slow, max_concurrent=2))
        run = asyncio.ensure_future(suspend(request, check_mode=False))
        while not (host.journal.exists() and "saving" in states_in_journal(host)):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        run.cancel()
        await run

    with pytest.raises(HostFailed, match=r"interrupted by a signal.*0 of 8 guests are suspended"):
        asyncio.run(interrupted())
    assert all_go_on(guests)
    assert images_in(host) == []
    assert set(states(host.suspend()).values()) == {"verified"}
    host.resume()
    assert all_go_on(guests)


def states_in_journal(host):
    return [entry["state"] for path in host.journal.glob("*.json") for entry in entries_of(path)]


def entries_of(path):
    return json.loads(path.read_text())["entries"]


@pytest.mark.full
def test_dependencies_and_priorities_decide_who_goes_first(guests, host):
    wishes = [
        {"name": "g0", "priority": 5},
        {"name": "g1", "depends_on": ["g0"]},
        {"name": "elsewhere"},
    ]
    plan = host.suspend(guests=wishes)["plan"]
    tier = {one["name"]: one["tier"] for one in plan["guests"]}
    assert tier["g1"] < tier["g0"]
    assert plan["not_here"] == ["elsewhere"]
    back = host.resume()["plan"]
    tier = {one["name"]: one["tier"] for one in back["guests"]}
    assert tier["g0"] < tier["g1"]
    assert all_go_on(guests)


def test_a_second_run_beside_one_that_is_under_way_is_refused(guests, host):
    host.suspend(include=["g0"])
    lock = host.journal / ".lock"
    with subprocess.Popen(["flock", str(lock), "sleep", "60"]) as holder:
        while not _is_locked(lock):
            assert holder.poll() is None
        with pytest.raises(Refused, match=r"Another run suspends or resumes this host"):
            host.suspend()
        with pytest.raises(Refused, match=r"Another run suspends or resumes this host"):
            host.resume()
        holder.terminate()
    assert all_go_on(guests[1:])


def _is_locked(path):
    return subprocess.run(["flock", "-n", str(path), "true"], check=False).returncode != 0


def test_a_store_that_is_full_for_one_of_eight(guests, host, small_store):
    path = str(small_store / "g3.save")
    with pytest.raises(Refused, match=r"nothing was touched.*g3: its store has no room"):
        host.suspend(guests=[{"name": "g3", "path": path}])
    assert all_go_on(guests)

    anyhow = [{"name": "g3", "path": path, "policy": "save"}]
    with pytest.raises(HostFailed, match=r"7 of 8 guests are suspended.*g3: .*No space") as failed:
        host.suspend(guests=anyhow)
    assert by_name(failed.value.facts)["g3"]["state"] == "failed"
    assert goes_on(guests[3])
    assert list(small_store.iterdir()) == []

    # Where there is room the next run saves it, and all come back.
    assert set(states(host.suspend()).values()) == {"verified"}
    assert set(states(host.resume()).values()) == {"running"}
    assert all_go_on(guests)


@pytest.mark.full
def test_with_rollback_one_failure_brings_all_back(guests, host, small_store):
    wishes = [{"name": "g3", "path": str(small_store / "g3.save"), "policy": "save", "priority": 1}]
    host.suspend(include=["g0"])
    with pytest.raises(HostFailed, match=r"0 of 8 guests are suspended.*g3: .*No space") as failed:
        host.suspend(guests=wishes, on_failure="rollback")
    assert failed.value.facts["journal"]["closed"] == "rolled back"
    assert all_go_on(guests)
    assert host.resume()["changed"] is False


def test_a_group_goes_together_or_not_at_all(guests, host, small_store):
    wishes = [{"name": f"g{number}", "group": "cluster", "policy": "save"} for number in range(3)]
    wishes[1]["path"] = str(small_store / "g1.save")
    with pytest.raises(HostFailed, match=r"5 of 8 guests.*g1 of its group was not saved"):
        host.suspend(guests=wishes)
    assert all_go_on(guests[:3])
    assert not any(guest.alive() for guest in guests[3:])
    host.resume()
    assert all_go_on(guests)

    for wish in wishes:
        wish.pop("path", None)
    result = by_name(host.suspend(guests=wishes))
    assert "stopped its vCPUs with those of its group" in result["g1"]["actions"]
    assert not any(guest.alive() for guest in guests)
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_members_of_a_group_run_again_only_when_all_are_there(guests, host):
    wishes = [{"name": f"g{number}", "group": "cluster"} for number in range(2)]
    host.suspend(guests=wishes)
    image = host.store / f"g1-{guests[1].uuid}.save"
    away = image.rename(image.with_suffix(".away"))
    with pytest.raises(HostFailed, match=r"6 of 8 guests run again") as failed:
        host.resume()
    found = by_name(failed.value.facts)
    assert "held paused, as g1 of its group is not back" in found["g0"]["error"]
    assert guests[0].status() == "paused"
    assert all_go_on(guests[2:])

    away.rename(image)
    assert host.resume()["journal"]["closed"] == "resumed"
    assert all_go_on(guests)


def test_a_guest_that_may_be_shut_down_and_does_not_is_told(tiny_guest, tmp_path, monkeypatch):
    monkeypatch.setattr(_saving, "_SHUTDOWN_SECONDS", 1.0)
    guests = started([tiny_guest(name="plain"), tiny_guest(name="nvme", extra=NVME)])
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    wishes = [{"name": "nvme", "policy": "shutdown"}]
    guests[1].execute("stop")  # so that it does not see its power button pressed
    with pytest.raises(HostFailed, match="nvme: It was asked to shut down and has not within 1 s"):
        host.suspend(guests=wishes)
    assert guests[1].alive()

    guests[1].execute("cont")
    guests[1].wait_gone()
    host.resume()
    assert goes_on(guests[0])


def test_a_guest_that_may_be_shut_down_is_and_no_resume_starts_it(tiny_guest, tmp_path):
    guests = started([tiny_guest(name="plain"), tiny_guest(name="nvme", extra=NVME)])
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    result = host.suspend(guests=[{"name": "nvme", "policy": "shutdown"}])
    assert states(result) == {"plain": "verified", "nvme": "shutdown"}
    assert by_name(result)["nvme"]["guest_state"] == "absent"
    assert not any(guest.alive() for guest in guests)

    host.resume()
    assert goes_on(guests[0])
    assert not guests[1].alive()


@pytest.mark.parametrize(
    ("policy", "lives"), [("leave", True), ("shutdown", False)], ids=["leave", "shutdown"]
)
def test_a_member_of_a_group_for_which_no_time_is_left_does_not_stay_stopped(
    tiny_guest, tmp_path, monkeypatch, policy, lives
):
    guests = started([tiny_guest(name="early"), tiny_guest(name="late")])
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    wishes = [
        {"name": "early", "group": "pair"},
        {"name": "late", "group": "pair", "policy": policy},
    ]
    monkeypatch.setattr(
        _saving.Saving, "_late", lambda _self, plan: "no time" if plan.seen.wish.policy else None
    )
    result = host.suspend(guests=wishes)
    expected = "left" if lives else "shutdown"
    assert states(result) == {"early": "verified", "late": expected}
    assert guests[1].alive() == lives
    assert not lives or goes_on(guests[1])
    host.resume()
    assert goes_on(guests[0])


@pytest.mark.full
def test_a_save_that_is_under_way_when_the_window_ends_is_undone(guests, host):
    # Never measured, so that nothing can be foretold: 4 MiB at 1 MiB/s.
    slow = [{"name": guest.name, "max_bandwidth": 1 << 20} for guest in guests]
    with pytest.raises(HostFailed, match=r"\d of 8 guests are suspended") as failed:
        host.suspend(guests=slow, window_seconds=6, max_concurrent=1)
    found = states(failed.value.facts)
    assert {"verified", "failed"} == set(found.values())
    assert all(guest.alive() == (found[guest.name] == "failed") for guest in guests)
    host.suspend()
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_a_guest_that_was_saved_and_is_started_by_somebody_else_is_saved_anew(guests, host):
    host.suspend()
    guests[0].start()
    guests[0].wait_passes(1)
    again = by_name(host.suspend())
    assert (again["g0"]["action"], again["g0"]["changed"]) == ("save", True)
    assert again["g1"]["changed"] is False
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_a_guest_that_was_brought_back_by_hand_and_ended_is_neither_restored_nor_called_lost(
    guests, host
):
    host.suspend()
    for guest in guests[:2]:
        bring_back(host.store / f"{guest.name}-{guest.uuid}.save")
    guests[0].quit()
    (host.store / f"g1-{guests[1].uuid}.save").unlink()  # it runs, and its image was cleared away
    back = by_name(host.resume())
    assert {name: guest["state"] for name, guest in back.items()} == dict.fromkeys(back, "running")
    assert "ended since" in back["g0"]["reason"]
    assert not guests[0].alive()
    assert all_go_on(guests[1:])
    assert host.resume()["journal"]["closed"] == "resumed"


@pytest.mark.full
def test_a_suspend_calls_nobody_lost_who_was_brought_back_by_hand(guests, host):
    host.suspend()
    bring_back(host.store / f"g0-{guests[0].uuid}.save")
    guests[0].quit()
    again = by_name(host.suspend())
    assert (again["g0"]["action"], again["g0"]["error"]) == ("ended", None)
    host.resume()
    assert all_go_on(guests[1:])


@pytest.mark.full
def test_an_image_whose_guest_runs_elsewhere_is_not_restored(guests, host):
    host.suspend()
    guests[0].start()
    guests[0].wait_passes(1)
    with pytest.raises(HostFailed, match=r"7 of 8 guests run again.*g0: .*stale"):
        host.resume()
    assert all_go_on(guests)
    assert len(guests[0]._pids()) == 1


@pytest.mark.full
def test_a_journal_that_cannot_be_written_any_more_stops_the_run_and_loses_nobody(
    guests, host, monkeypatch
):
    written = []
    really = _journal_file._write

    def full(directory, journal):
        written.append(journal)
        if len(written) > 4:
            raise StoreError(f"Writing the journal {directory} failed: No space left on device.")
        really(directory, journal)

    with monkeypatch.context() as patch:
        patch.setattr(_journal_file, "_write", full)
        with pytest.raises(HostFailed, match=r"Writing the journal .* No space left on device"):
            host.suspend(max_concurrent=1)
    assert any(guest.alive() for guest in guests)
    assert all(goes_on(guest) for guest in guests if guest.alive())
    assert set(states(host.suspend()).values()) <= {"saved", "verified"}
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_a_group_that_a_signal_interrupts_runs_again_as_a_whole(guests, host):
    wishes = [{"name": guest.name, "group": "cluster"} for guest in guests[:2]]
    wishes[1]["max_bandwidth"] = 1 << 20

    async def interrupted():
        params = host.suspend_params(guests=wishes, include=["g0", "g1"], max_concurrent=2)
        run = asyncio.ensure_future(suspend(suspend_request(params), check_mode=False))
        while not (host.journal.exists() and "verified" in states_in_journal(host)):
            await asyncio.sleep(0.05)
        run.cancel()
        await run

    with pytest.raises(HostFailed, match="interrupted by a signal"):
        asyncio.run(interrupted())
    assert all_go_on(guests)
    host.suspend(guests=wishes)
    host.resume()
    assert all_go_on(guests)


@pytest.mark.full
def test_while_the_store_is_not_mounted_nobody_is_called_lost(guests, host):
    host.suspend()
    away = host.store.rename(host.store.with_name("elsewhere"))
    host.store.mkdir()
    told = by_name(host.suspend())
    assert {guest["action"] for guest in told.values()} == {"unknown"}
    assert all("mounted" in guest["error"] for guest in told.values())
    with pytest.raises(HostFailed, match=r"0 of 8 guests run again.*There is no image"):
        host.resume()
    host.store.rmdir()
    away.rename(host.store)
    assert set(states(host.resume()).values()) == {"running"}
    assert all_go_on(guests)


def pair(tiny_guest, tmp_path, *names):
    """Two guests as one group, and their host."""
    guests = started(tiny_guest(name=name) for name in names)
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    return guests, host, [{"name": name, "group": "pair"} for name in names]


def image_of(host, guest):
    return host.store / f"{guest.name}-{guest.uuid}.save"


def test_a_member_that_stood_still_before_is_back_even_where_another_one_is_not(
    tiny_guest, tmp_path
):
    (runs, stands), host, wishes = pair(tiny_guest, tmp_path, "runs", "stands")
    stands.execute("stop")
    host.suspend(guests=wishes)
    away = image_of(host, runs).rename(tmp_path / "away")
    with pytest.raises(HostFailed, match=r"1 of 2 guests run again.*runs: .*There is no image"):
        host.resume()
    assert stands.status() == "paused"
    away.rename(image_of(host, runs))
    assert host.resume()["journal"]["closed"] == "resumed"
    assert goes_on(runs)
    assert stands.status() == "paused"


def test_no_member_of_a_group_stays_stopped_for_a_journal_that_cannot_be_written(
    tiny_guest, tmp_path, monkeypatch
):
    guests, host, wishes = pair(tiny_guest, tmp_path, "one", "two")
    really = _journal_file._write

    def full(directory, journal):
        if any(entry.state == "saving" for entry in journal.entries):
            raise StoreError(f"Writing the journal {directory} failed: No space left on device.")
        really(directory, journal)

    with monkeypatch.context() as patch:
        patch.setattr(_journal_file, "_write", full)
        with pytest.raises(HostFailed, match=r"Writing the journal .* No space left on device"):
            host.suspend(guests=wishes)
    assert all_go_on(guests)
    assert set(states(host.suspend(guests=wishes)).values()) == {"verified"}
    host.resume()
    assert all_go_on(guests)


def test_where_a_group_is_not_saved_no_member_of_it_is_shut_down(tiny_guest, tmp_path, small_store):
    guests = started([tiny_guest(name="plain"), tiny_guest(name="nvme", extra=NVME)])
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    path = str(small_store / "plain.save")
    wishes = [
        {"name": "plain", "group": "pair", "policy": "save", "path": path},
        {"name": "nvme", "group": "pair", "policy": "shutdown"},
    ]
    with pytest.raises(HostFailed, match=r"nvme: it was not begun: its group was not saved"):
        host.suspend(guests=wishes)
    assert all_go_on(guests)


@pytest.mark.parametrize(
    "on_failure", ["continue", pytest.param("rollback", marks=pytest.mark.full)]
)
def test_a_guest_that_a_failed_save_left_stopped_is_not_forgotten(
    tiny_guest, tmp_path, monkeypatch, on_failure
):
    guests = started(tiny_guest(name=name) for name in ("well", "stuck"))
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    quit_qemu = vars(_leave)["_quit"]

    async def stays(session):
        if session.plan.name == "stuck":
            raise MonitorError("QEMU was still there 60 s after quit.")
        await quit_qemu(session)

    with monkeypatch.context() as patch:
        patch.setattr(_leave, "_quit", stays)
        with pytest.raises(HostFailed, match=r"stuck: .*still there.*postmigrate") as failed:
            host.suspend(on_failure=on_failure)
    assert by_name(failed.value.facts)["stuck"]["state"] == "saving"
    assert failed.value.facts["journal"]["closed"] is None
    assert guests[1].status() == "postmigrate"

    with pytest.raises(HostFailed, match=r"stuck: .*Run the suspend again"):
        host.resume()
    assert set(states(host.suspend()).values()) <= {"saved", "verified"}
    assert host.resume()["journal"]["closed"] == "resumed"
    assert all_go_on(guests)


def test_a_rollback_gives_back_a_guest_that_runs_even_if_its_resume_was_to_leave_it_paused(
    tiny_guest, tmp_path, small_store
):
    guests = started(tiny_guest(name=name) for name in ("well", "full"))
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    path = str(small_store / "full.save")
    wishes = [
        {"name": "well", "run_state": "paused"},
        {"name": "full", "path": path, "policy": "save", "priority": 1},
    ]
    with pytest.raises(HostFailed, match=r"full: .*No space"):
        host.suspend(guests=wishes, on_failure="rollback")
    assert all_go_on(guests)
