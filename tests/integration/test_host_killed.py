# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's run that dies on the way: the next one goes on, no guest is lost and none runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _saving
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._outcome import HostFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, goes_on
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_MANY
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host, by_name
from ansible_collections.vmfleet.suspend.tests.support.stricken import (
    EFFECT,
    Blow,
    run_stricken,
)

NAMES = ("a", "b", "c")
EXECUTE = "_qemu._monitor.Monitor.execute"
JOURNAL = "_host._journal_file._write"
# Of a run that nothing strikes, about: see the last test of each kind, which counts them.
SUSPEND_EFFECTS = 110
RESUME_EFFECTS = 60
GROUP = [{"name": name, "group": "cluster"} for name in NAMES]


@pytest.fixture
def guests(tiny_guest):
    all_of_them = [tiny_guest(name=name, **ONE_OF_MANY).start() for name in NAMES]
    for guest in all_of_them:
        guest.wait_passes(1)
    return all_of_them


@pytest.fixture
def host(guests, tmp_path):
    return Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])


def killed(verb, all_guests, tmp_path, blow, **options):
    """A run that dies; False where it was done before the blow came."""
    if verb == "suspend":
        options["qmp_sockets"] = [guest.qmp_socket for guest in all_guests]
        options["qemu_conf"] = "/nonexistent/qemu.conf"
    return run_stricken(verb, {"directory": str(tmp_path), **options}, blow).killed


def ends_suspended(host, all_guests, **options):
    result = host.suspend(**options)
    assert {guest["state"] for guest in result["guests"]} <= {"saved", "verified"}
    assert sorted(by_name(result)) == sorted(NAMES)
    assert not any(guest.alive() for guest in all_guests)
    assert [path.name for path in host.store.iterdir() if path.name.startswith(".")] == []
    return host.suspend(**options)["changed"] is False


def ends_resumed(host, guests):
    result = host.resume()
    assert result["journal"]["closed"] == "resumed"
    assert all(goes_on(guest) for guest in guests)
    assert all(len(guest._pids()) == 1 for guest in guests)
    return host.resume()["changed"] is False


def cases(blows, *always):
    """All of them with --full."""
    return [
        pytest.param(blow, id=what, marks=[] if what in always else [pytest.mark.full])
        for what, blow in blows.items()
    ]


SUSPENDS = {
    "before the journal is begun": Blow(JOURNAL, before=True),
    "the journal is begun, and empty": Blow(JOURNAL),
    "the guests are noted": Blow(JOURNAL, nth=2),
    "one is being saved": Blow(EXECUTE, command="migrate"),
    "one is in postmigrate": Blow("_save._run.write_guest"),
    "one is published": Blow("_save._run.publish_image"),
    "one has gone": Blow("_save._run.leave"),
    "one is noted as saved": Blow("_host._saving.Saving._note_save"),
    "the last one is published": Blow("_save._run.publish_image", nth=3),
}


@pytest.mark.parametrize("blow", cases(SUSPENDS, "one is in postmigrate", "one is published"))
def test_a_suspend_that_is_killed_is_finished_by_the_next(guests, host, tmp_path, blow):
    assert killed("suspend", guests, tmp_path, blow)
    assert ends_suspended(host, guests)
    assert ends_resumed(host, guests)


RESUMES = {
    "before anything is noted": Blow(JOURNAL, before=True),
    "one is noted as on its way": Blow(JOURNAL, nth=2),
    "QEMU is started": Blow("_restore._starter.Starter.start"),
    "one is being loaded": Blow(EXECUTE, command="migrate-incoming"),
    "one is loaded and not marked": Blow("_restore._run.run_guest", before=True),
    "one runs": Blow("_restore._run.run_guest"),
    "the second runs": Blow("_restore._run.run_guest", nth=2),
    "all run and the journal is open": Blow("_host._resume._Resume._close", before=True),
}


@pytest.mark.parametrize("blow", cases(RESUMES, "one is being loaded", "the second runs"))
def test_a_resume_that_is_killed_is_finished_by_the_next(guests, host, tmp_path, blow):
    host.suspend()
    assert killed("resume", guests, tmp_path, blow)
    assert ends_resumed(host, guests)


@pytest.mark.full
def test_a_resume_after_a_killed_suspend_brings_back_whom_it_can_and_names_the_others(
    guests, host, tmp_path
):
    blow = Blow("_save._run.write_guest", nth=2)
    assert killed("suspend", guests, tmp_path, blow, max_concurrent=1)
    with pytest.raises(HostFailed, match="Run the suspend again") as failed:
        host.resume()
    found = by_name(failed.value.facts)
    assert sorted(guest["state"] for guest in found.values()) == ["running", "running", "saving"]
    assert sum(goes_on(guest) for guest in guests if guest.status() == "running") == 2
    assert ends_suspended(host, guests)
    assert ends_resumed(host, guests)


GROUPS = {
    "one stands still": Blow(EXECUTE, command="stop"),
    "all stand still": Blow(EXECUTE, command="stop", nth=3),
    "one is saved": Blow("_save._run.leave"),
}


@pytest.mark.parametrize("blow", cases(GROUPS, "all stand still"))
@pytest.mark.parametrize("then", [pytest.param("suspend", marks=pytest.mark.full), "resume"])
def test_a_group_whose_suspend_is_killed_runs_again_as_it_ran(guests, host, tmp_path, blow, then):
    assert killed("suspend", guests, tmp_path, blow, guests=GROUP)
    if then == "resume" and blow.step == EXECUTE:
        result = host.resume()
        assert {guest["state"] for guest in result["guests"]} == {"running"}
        assert all(goes_on(guest) for guest in guests)
        return
    assert ends_suspended(host, guests, guests=GROUP)
    assert ends_resumed(host, guests)


@pytest.mark.full
def test_a_group_whose_resume_is_killed_between_runs_in_the_end(guests, host, tmp_path):
    host.suspend(guests=GROUP)
    blow = Blow("_restore._run.run_guest", nth=1)
    assert killed("resume", guests, tmp_path, blow)
    assert ends_resumed(host, guests)


NOTED = Blow(JOURNAL, nth=2)


@pytest.fixture
def alone(tiny_guest):
    guest = tiny_guest(name="a").start()
    guest.wait_passes(1)
    return guest


def an_older_image_of(guest, host):
    """Its path; the guest runs past it."""
    image = host.store / f"a-{guest.uuid}.save"
    do_save(guest.qmp_socket, str(image))
    guest.start()  # by somebody else, afresh
    guest.wait_passes(1)
    return image


@pytest.mark.parametrize("then", ["suspend", "resume"])
def test_an_image_of_an_earlier_run_of_a_lost_guest_is_stale_and_not_taken_for_its_own(
    alone, tmp_path, then
):
    host = Host(tmp_path, qmp_sockets=[alone.qmp_socket])
    image = an_older_image_of(alone, host)
    assert killed("suspend", [alone], tmp_path, NOTED)
    alone.kill()
    with pytest.raises(HostFailed, match=r"a: .*RAM is lost.*a-.*older image of it") as failed:
        getattr(host, then)()
    lost = by_name(failed.value.facts)["a"]
    assert (lost["state"], lost["stale_image"]) == ("crashed", str(image))
    assert getattr(host, then)()["changed"] is False
    assert not alone.alive()

    alone.start()
    alone.wait_passes(1)
    anew = host.suspend()
    assert by_name(anew)["a"]["state"] == "verified"
    assert [entry["stale_image"] for entry in anew["journal"]["guests"]] == [None]
    host.resume()
    assert goes_on(alone)


@pytest.fixture
def ends_at_its_turn(alone, monkeypatch):
    """Its QEMU ends after the plan, when its save begins."""
    save_one = vars(_saving)["save_one"]

    async def end_first(request, *, check_mode):
        alone.kill()
        return await save_one(request, check_mode=check_mode)

    monkeypatch.setattr(_saving, "save_one", end_first)


def test_a_guest_that_ends_at_its_turn_is_lost_and_an_older_image_is_not_taken_for_its_own(
    alone, tmp_path, ends_at_its_turn
):
    host = Host(tmp_path, qmp_sockets=[alone.qmp_socket])
    image = an_older_image_of(alone, host)
    with pytest.raises(HostFailed, match=f"{image} is an older image of it, and stale") as failed:
        host.suspend()
    lost = by_name(failed.value.facts)["a"]
    assert (lost["state"], lost["stale_image"]) == ("crashed", str(image))
    with pytest.raises(HostFailed, match="its RAM is lost"):
        host.resume()
    assert not alone.alive()


@pytest.mark.parametrize("verb", ["save", "suspend"])
def test_a_guest_that_a_dead_run_had_saved_and_that_ends_at_its_turn_is_saved(
    alone, tmp_path, ends_at_its_turn, verb
):
    host = Host(tmp_path, qmp_sockets=[alone.qmp_socket])
    published = Blow("_save._run.publish_image")
    image = str(host.store / f"a-{alone.uuid}.save")
    if verb == "save":
        options = {"qmp_socket": alone.qmp_socket, "path": image}
        assert run_stricken("save", options, published).killed
    else:
        assert killed("suspend", [alone], tmp_path, published)
    assert alone.status() == "postmigrate"
    suspended = by_name(host.suspend())["a"]
    assert suspended["state"] in ("saved", "verified")
    assert by_name(host.resume())["a"]["state"] == "running"
    assert goes_on(alone)


def test_a_guest_whose_qemu_lives_where_nobody_sees_it_is_not_called_lost(alone, tmp_path):
    host = Host(tmp_path, qmp_sockets=[alone.qmp_socket])
    assert killed("suspend", [alone], tmp_path, NOTED)
    away = Path(alone.qmp_socket).rename(tmp_path / "away")
    lives = rf"a: its QEMU, process {alone.pid}, lives"
    with pytest.raises(Refused, match=rf"nothing was touched.*{lives}"):
        host.suspend()
    with pytest.raises(HostFailed, match=lives):
        host.resume()
    away.rename(alone.qmp_socket)
    assert by_name(host.suspend())["a"]["state"] == "verified"
    host.resume()
    assert goes_on(alone)


def some(effects, step):
    """Each of them with --full, else one of ``step``."""
    return [
        pytest.param(nth, marks=[] if nth % step == 1 else [pytest.mark.full])
        for nth in range(1, effects)
    ]


@pytest.mark.parametrize("nth", some(SUSPEND_EFFECTS, 53))
def test_a_suspend_may_die_at_any_step(guests, host, tmp_path, nth):
    killed("suspend", guests, tmp_path, Blow(EFFECT, nth=nth, before=True))
    assert ends_suspended(host, guests)
    assert ends_resumed(host, guests)


@pytest.mark.parametrize("nth", some(RESUME_EFFECTS, 41))
def test_a_resume_may_die_at_any_step(guests, host, tmp_path, nth):
    host.suspend()
    killed("resume", guests, tmp_path, Blow(EFFECT, nth=nth, before=True))
    assert ends_resumed(host, guests)
