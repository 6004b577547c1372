# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains of a real libvirt, saved and restored through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import LibvirtError, Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt import _connection, _daemon
from ansible_collections.vmfleet.suspend.plugins.module_utils._measured import Figure, Figures
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _domain_run as restore
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _domain_run as run
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _domain_settled
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_request import (
    DomainSaveRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _store_figures
from ansible_collections.vmfleet.suspend.tests.support.drive import image_info, leftovers
from ansible_collections.vmfleet.suspend.tests.support.kinds import needs_program
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_by_libvirt,
    save_by_libvirt,
)

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "raw": {"image_format": "raw"},
    "zstd": {"image_format": "zstd"},
    "one-channel": {"parallel_channels": 1},
    "past-the-cache": {"parallel_channels": 2, "bypass_cache": True},
    "raw-past-the-cache": {"image_format": "raw", "bypass_cache": True},
    "version-3": {"image_version": 3},
}


def state_of(domain):
    return domain.host.virsh("domstate", domain.name).strip()


def is_well(domain):
    domain.wait_passes(2)
    return state_of(domain) == "running" and domain.mismatches == []


def ask_qemu(domain, command, **arguments):
    words = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(domain.host.virsh("qemu-monitor-command", domain.name, words))["return"]


def autostarts(domain):
    return "Autostart:      enable" in domain.host.virsh("dominfo", domain.name)


REPRESENTATIVE = ("default", "zstd", "past-the-cache", "version-3")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in REPRESENTATIVE else (pytest.mark.full,))
        for kind in KINDS
    ],
)
def test_a_domain_comes_back_with_its_memory_and_a_second_run_changes_nothing(domain, store, kind):
    options, path = KINDS[kind], store / "domain.save"
    needs_program(options.get("image_format", "raw"))
    mapped = "image_format" not in options
    result = save_by_libvirt(domain, path, **options)
    assert result["changed"] and not domain.alive()
    assert (result["image"]["verified_before_quit"], result["image"]["state"]) == (False, "ready")
    info = image_info(path)
    assert info["version"] == options.get("image_version", 2)
    assert (info["layout"] == "mapped-ram", info["uuid"]) == (mapped, domain.uuid)
    assert (path.stat().st_mode & 0o777, leftovers(store)) == (0o600, [])
    assert save_by_libvirt(domain, path, **options)["changed"] is False
    back = restore_by_libvirt(domain, path, bypass_cache=options.get("bypass_cache"))
    assert (back["guest"]["state"], back["image"]["state"]) == ("running", "spent")
    assert is_well(domain)
    assert restore_by_libvirt(domain, path)["changed"] is False
    assert image_info(path)["version"] == options.get("image_version", 2)


def test_what_was_measured_is_gone_by_where_qemu_can(domain, store, monkeypatch):
    path = store / "domain.save"
    figures = (Figure(True, 1, 9e6), Figure(False, 1, 1e6))
    kept = _store_figures.identity(str(store), "libvirt 11.3.0")
    _store_figures.keep(kept, Figures(time.time(), figures, figures))
    assert save_by_libvirt(domain, path)["negotiated"]["bypass_cache"] is True
    assert restore_by_libvirt(domain, path, check_mode=True)["negotiated"]["bypass_cache"] is True

    async def an_older_qemu(_connection):
        return 9_000_004

    with monkeypatch.context() as patch:
        patch.setattr(_connection.Connection, "qemu_version", an_older_qemu)
        foreseen = restore_by_libvirt(domain, path, check_mode=True)
        assert foreseen["negotiated"]["bypass_cache"] is False
        assert "lacks direct-io" in foreseen["plan"]["reasons"]["bypass_cache"]
    assert restore_by_libvirt(domain, path)["negotiated"]["bypass_cache"] is True
    assert is_well(domain)


def test_check_mode_tells_the_same_and_touches_nothing(domain, store):
    path = store / "domain.save"
    planned = save_by_libvirt(domain, path, check_mode=True)
    assert (os.listdir(store), state_of(domain)) == ([], "running")
    done = save_by_libvirt(domain, path)
    assert planned["diff"] == done["diff"]
    before = path.read_bytes()
    planned = restore_by_libvirt(domain, path, check_mode=True)
    assert (path.read_bytes() == before, state_of(domain)) == (True, "shut off")
    assert planned["diff"] == restore_by_libvirt(domain, path)["diff"]


@pytest.mark.full
def test_a_paused_domain_stays_paused_until_it_is_asked_to_run(domain, store):
    path = store / "domain.save"
    domain.host.virsh("suspend", domain.name)
    save_by_libvirt(domain, path)
    assert restore_by_libvirt(domain, path)["guest"]["state"] == "paused"
    assert (state_of(domain), image_info(path)["state"]) == ("paused", "ready")
    assert restore_by_libvirt(domain, path)["changed"] is False
    assert restore_by_libvirt(domain, path, run_state="running")["image"]["state"] == "spent"
    assert is_well(domain)


def test_the_image_is_spent_before_the_first_instruction(domain, store, monkeypatch):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    seen = []

    async def resume(self, uuid):
        seen.append((image_info(path)["state"], state_of(domain)))

    monkeypatch.setattr(_connection.Connection, "resume", resume)
    restore_by_libvirt(domain, path)
    assert seen == [("spent", "paused")]


def test_a_run_that_dies_before_the_resume_is_finished_by_the_next(domain, store, monkeypatch):
    path = store / "domain.save"
    save_by_libvirt(domain, path)

    class Killed(BaseException):
        pass

    def dies(*_arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(restore, "mark_spent", dies)
        restore_by_libvirt(domain, path)
    assert (state_of(domain), image_info(path)["state"]) == ("paused", "ready")
    result = restore_by_libvirt(domain, path)
    assert result["plan"]["action"] == "continue"
    assert (is_well(domain), image_info(path)["state"]) == (True, "spent")


@pytest.mark.full
def test_a_domain_that_was_started_from_elsewhere_makes_the_image_stale(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    domain.host.virsh("start", domain.name)
    with pytest.raises(Refused, match=r"started from elsewhere, and the image is stale"):
        restore_by_libvirt(domain, path)
    assert state_of(domain) == "running"
    assert image_info(path)["state"] == "ready"


def test_an_image_of_another_domain_is_refused_before_libvirt_is_asked(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    with pytest.raises(Refused, match=rf"is of {domain.name} .*not of other"):
        restore_by_libvirt(domain, path, domain="other")
    restore_by_libvirt(domain, path, domain=domain.uuid)
    assert is_well(domain)


@pytest.mark.full
def test_the_image_of_another_domain_is_not_replaced(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    other = bytearray(path.read_bytes())
    position = other.find(domain.uuid.encode())
    other[position] = ord("f") if other[position] != ord("f") else ord("e")
    path.write_bytes(other)
    domain.host.virsh("start", domain.name)
    domain.wait_passes(1)
    with pytest.raises(Refused, match=r"which is not this domain.*set overwrite"):
        save_by_libvirt(domain, path)
    assert path.read_bytes() == other
    assert save_by_libvirt(domain, path, overwrite=True)["changed"]
    assert image_info(path)["uuid"] == domain.uuid


def test_a_domain_that_is_not_there_was_saved_or_it_is_an_error(domain, store):
    with pytest.raises(Refused, match=r"The domain nobody is not running at .*no image at"):
        save_by_libvirt(domain, store / "domain.save", domain="nobody")


def test_autostart_is_off_while_the_domain_is_an_image_and_on_again_afterwards(domain, store):
    path = store / "domain.save"
    domain.host.virsh("autostart", domain.name)
    assert save_by_libvirt(domain, path, check_mode=True)["plan"]["holds_autostart"]
    assert autostarts(domain)
    assert "switched autostart off until it is restored" in save_by_libvirt(domain, path)["actions"]
    assert not autostarts(domain)
    domain.host.restart(fresh=True)  # as after a reboot: libvirt starts what is marked for it
    assert state_of(domain) == "shut off"
    assert "switched autostart on again" in restore_by_libvirt(domain, path)["actions"]
    assert autostarts(domain)
    assert "held" not in domain.host.virsh("dumpxml", "--inactive", domain.name)
    assert is_well(domain)


def test_autostart_is_on_again_after_a_save_that_failed(domain, store, monkeypatch):
    domain.host.virsh("autostart", domain.name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SaveFailed, match="there is no virsh to do it with"):
        save_by_libvirt(domain, store / "domain.save", parallel_channels=2)
    assert autostarts(domain)
    assert (os.listdir(store), is_well(domain)) == ([], True)


@pytest.mark.full
def test_direct_io_left_on_by_a_restore_does_not_end_the_guest_in_the_next_save(domain, store):
    """T2: libvirt never switches it off, and QEMU dies of a sparse save without a second file."""
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    domain.host.virsh("restore", path, "--bypass-cache", "--parallel-channels", 2)
    assert ask_qemu(domain, "query-migrate-parameters")["direct-io"] is True
    result = save_by_libvirt(domain, path, bypass_cache=False)
    assert "set direct-io off in QEMU" in result["actions"]
    restore_by_libvirt(domain, path)
    assert is_well(domain)


@pytest.mark.full
def test_a_load_past_the_cache_does_not_leave_direct_io_on_for_virsh(domain, store):
    """T2: a plain sparse save by virsh would end the guest."""
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    back = restore_by_libvirt(domain, path, bypass_cache=True)
    assert "set direct-io off in QEMU" in back["actions"]
    domain.host.virsh("save", domain.name, path, "--image-format", "sparse")
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_what_libvirt_leaks_in_a_failed_save_is_taken_back(domain):
    """T9: QEMU keeps the removed file open, and the store full, until the guest ends."""
    small_store = domain.host.small_store
    with pytest.raises(SaveFailed, match="No space left") as failed:
        save_by_libvirt(domain, small_store / "domain.save")
    assert failed.value.facts["guest"]["state"] == "running"
    labels = [fd["opaque"] for fdset in ask_qemu(domain, "query-fdsets") for fd in fdset["fds"]]
    assert labels == ["serial0-source"]
    assert (os.listdir(small_store), is_well(domain)) == ([], True)


@pytest.mark.parametrize("error", [asyncio.CancelledError, LibvirtError("Saving", "hung up", 38)])
def test_a_save_that_libvirt_finished_is_kept_whatever_came_up_meanwhile(
    domain, store, monkeypatch, error
):
    path, save = store / "domain.save", vars(_connection.Connection)["save"]

    async def disturbed(self, *arguments, **options):
        await save(self, *arguments, **options)
        raise error

    monkeypatch.setattr(_connection.Connection, "save", disturbed)
    assert save_by_libvirt(domain, path)["image"]["state"] == "ready"
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_a_guest_whose_qemu_dies_is_crashed_and_not_saved(domain, store, monkeypatch):
    domain.host.virsh("autostart", domain.name)

    async def dies(self, *_arguments, **_options):
        os.kill(domain.pid, signal.SIGKILL)
        while domain.alive() or state_of(domain) == "running":
            await asyncio.sleep(0.05)
        raise LibvirtError("Saving", "Unable to read from monitor", 38)

    monkeypatch.setattr(_connection.Connection, "save", dies)
    with pytest.raises(SaveFailed, match="its RAM is lost; the domain was not saved") as failed:
        save_by_libvirt(domain, store / "domain.save")
    assert failed.value.facts["guest"]["state"] == "crashed"
    assert autostarts(domain)
    assert os.listdir(store) == []


@pytest.mark.full
def test_a_description_of_the_operators_goes_into_the_image(domain, store):
    path, xml = store / "domain.save", store.parent / "domain.xml"
    described = domain.host.virsh("dumpxml", "--migratable", "--security-info", domain.name)
    xml.write_text(described.replace("<memory", "<title>from outside</title>\n<memory", 1))
    save_by_libvirt(domain, path, domain_xml_file=str(xml))
    assert "from outside" in domain.host.virsh("save-image-dumpxml", path)
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_an_image_that_libvirt_wrote_badly_is_an_error_that_says_the_guest_is_gone(
    domain, store, monkeypatch
):
    path, save = store / "domain.save", vars(_connection.Connection)["save"]

    async def truncates(self, uuid, written, **options):
        await save(self, uuid, written, **options)
        os.truncate(written, os.path.getsize(written) // 2)

    monkeypatch.setattr(_connection.Connection, "save", truncates)
    with pytest.raises(SaveFailed, match=r"so the guest is gone.*Keep that file") as failed:
        save_by_libvirt(domain, path)
    assert failed.value.facts["guest"]["state"] == "stopped"
    assert os.listdir(store) == [".domain.save.partial"]


def test_a_save_whose_run_died_is_published_by_the_next(domain, store, monkeypatch):
    path = store / "domain.save"

    class Killed(BaseException):
        pass

    async def dies(*_arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run._Save, "_finish", dies)
        save_by_libvirt(domain, path)
    assert os.listdir(store) == [".domain.save.partial"]
    assert save_by_libvirt(domain, path, check_mode=True)["changed"]
    assert not path.exists()
    assert save_by_libvirt(domain, path)["changed"]
    assert leftovers(store) == []
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def wait_for_a_job_on(domain, path):
    end = time.monotonic() + 20
    while "Unbounded" not in domain.host.virsh("domjobinfo", domain.name) or not path.exists():
        assert time.monotonic() < end, "libvirt does not begin to save it"


@pytest.mark.full
def test_a_run_that_is_killed_does_not_end_the_save_and_the_next_publishes_it(domain, store):
    needs_program("xz")
    path, hidden = store / "domain.save", store / ".domain.save.partial"
    domain.host.virsh("autostart", domain.name)
    child = os.fork()
    if child == 0:
        try:
            save_by_libvirt(domain, path, image_format="xz")
        finally:
            os._exit(1)
    wait_for_a_job_on(domain, hidden)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(Refused, match="a job of libvirt's runs on it"):
        save_by_libvirt(domain, path)
    while state_of(domain) != "shut off":
        time.sleep(0.1)
    assert save_by_libvirt(domain, path)["changed"]
    assert leftovers(store) == []
    restore_by_libvirt(domain, path)
    assert (is_well(domain), autostarts(domain)) == (True, True)


def save_during_which(domain, path, happens):
    """A save that libvirt is in the middle of when something happens to its daemon."""

    async def save():
        options = {"domain": domain.name, "uri": domain.host.uri, "image_format": "xz"}
        request = DomainSaveRequest(path=str(path), **options)
        task = asyncio.ensure_future(run.save_domain(request, check_mode=False))
        hidden = path.with_name(f".{path.name}.partial")
        await asyncio.to_thread(wait_for_a_job_on, domain, hidden)
        happens()
        await task

    needs_program("xz")
    asyncio.run(save())


def test_a_daemon_that_is_killed_leaves_a_domain_that_the_next_run_saves(
    domain, store, monkeypatch
):
    monkeypatch.setattr(_domain_settled, "_BACK_SECONDS", 1.0)
    path, hidden = store / "domain.save", store / ".domain.save.partial"
    with pytest.raises(SaveFailed, match="is not known: look with virsh domstate") as failed:
        save_during_which(domain, path, domain.host.kill)
    assert failed.value.facts["guest"]["state"] == "unknown"
    domain.host.restart(fresh=False)
    # libvirt lets a guest go on whose save it lost, a moment after it answers again.
    domain._wait(lambda: state_of(domain) == "running", 20, "go on")
    assert save_by_libvirt(domain, path)["plan"]["recovers"]["path"] == str(hidden)
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_a_daemon_that_crashes_and_is_started_again_is_waited_for(domain, store, monkeypatch):
    monkeypatch.setattr(_domain_settled, "_BACK_SECONDS", 60.0)  # however busy this machine is
    with pytest.raises(SaveFailed, match="The domain is running, as libvirt left it") as failed:
        save_during_which(domain, store / "domain.save", domain.host.crash)
    assert failed.value.facts["guest"]["state"] == "running"
    assert (os.listdir(store), is_well(domain)) == ([], True)


def test_a_leftover_of_another_domain_is_left_to_its_own_save(domain, store):
    path, hidden = store / "domain.save", store / ".domain.save.partial"
    save_by_libvirt(domain, path)
    path.rename(hidden)
    with pytest.raises(Refused, match=rf"left by a save of {domain.name} .*Run that save again"):
        save_by_libvirt(domain, path, domain="other")
    assert hidden.exists()
    assert save_by_libvirt(domain, path)["changed"]


def test_a_whole_leftover_does_not_replace_a_ready_image(domain, store):
    path, hidden = store / "domain.save", store / ".domain.save.partial"
    save_by_libvirt(domain, path)
    shutil.copyfile(path, hidden)
    with pytest.raises(Refused, match="its name is taken by a ready image"):
        save_by_libvirt(domain, path)
    assert hidden.exists()


@pytest.mark.full
def test_an_autostart_that_a_dead_run_left_off_is_switched_on_by_the_next(
    domain, store, monkeypatch
):
    path = store / "domain.save"
    domain.host.virsh("autostart", domain.name)
    save_by_libvirt(domain, path)

    async def dies_before(self):
        return None

    with monkeypatch.context() as patch:
        patch.setattr(restore._Restore, "_switch_autostart_on", dies_before)
        restore_by_libvirt(domain, path)
    assert not autostarts(domain)
    assert restore_by_libvirt(domain, path, check_mode=True)["changed"]
    assert restore_by_libvirt(domain, path)["changed"]
    assert autostarts(domain)
    assert restore_by_libvirt(domain, path)["changed"] is False


def test_a_domain_that_ends_while_it_is_looked_at_has_ended(domain, monkeypatch):
    libvirt = vars(_daemon)["libvirt"]
    job_info = libvirt.virDomain.jobInfo

    def ends_first(self):
        domain.host.virsh("destroy", domain.name)
        return job_info(self)

    async def look():
        connection = await _connection.Connection.open(domain.host.uri)
        try:
            return await connection.find(domain.name)
        finally:
            await connection.close()

    monkeypatch.setattr(libvirt.virDomain, "jobInfo", ends_first)
    found = asyncio.run(look())
    assert (found.state, found.job, found.active) == ("shutoff", False, False)


def test_what_a_dead_run_left_of_a_domain_that_goes_on_is_removed(domain, store):
    path = store / "domain.save"
    (store / ".domain.save.partial").write_bytes(b"LibvirtQemudPart" + bytes(100))
    assert save_by_libvirt(domain, path)["plan"]["recovers"]["remedy"] == "remove"
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_a_transient_domain_comes_back_as_one(domain, store):
    path = store / "domain.save"
    xml = domain.host.virsh("dumpxml", "--inactive", domain.name)
    domain.host.virsh("undefine", domain.name)
    save_by_libvirt(domain, path)
    assert domain.name not in domain.host.virsh("list", "--all", "--name").split()
    assert save_by_libvirt(domain, path)["changed"] is False
    restore_by_libvirt(domain, path)
    assert is_well(domain)
    domain.host.define(xml)


def test_a_domain_with_a_managed_save_is_neither_saved_nor_restored_over(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    domain.host.virsh("start", domain.name)
    domain.wait_passes(1)
    domain.host.virsh("managedsave", domain.name)
    with pytest.raises(Refused, match="managed save"):
        save_by_libvirt(domain, store / "other.save")
    with pytest.raises(Refused, match="virsh managedsave-remove"):
        restore_by_libvirt(domain, path)
    domain.host.virsh("managedsave-remove", domain.name)


@pytest.mark.full
def test_a_spent_image_is_restored_only_where_that_is_allowed(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    restore_by_libvirt(domain, path)
    domain.host.virsh("destroy", domain.name)
    with pytest.raises(Refused, match="is spent"):
        restore_by_libvirt(domain, path)
    restore_by_libvirt(domain, path, allow=frozenset({"spent"}))
    assert (is_well(domain), image_info(path)["state"]) == (True, "spent")


def test_an_image_that_libvirt_cannot_load_stays_ready_and_nothing_runs(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path, image_version=3)
    xml = domain.host.virsh("dumpxml", "--inactive", domain.name)
    disk = domain.disk_path.rename(domain.disk_path.with_suffix(".away"))
    with pytest.raises(RestoreFailed, match=r"The image is ready. No QEMU holds the domain"):
        restore_by_libvirt(domain, path, allow=frozenset({"changed_disks"}))
    assert (image_info(path)["version"], state_of(domain)) == (3, "shut off")
    disk.rename(domain.disk_path)
    restore_by_libvirt(domain, path)
    assert is_well(domain)
    assert domain.host.virsh("dumpxml", "--inactive", domain.name) == xml


def test_a_save_that_takes_too_long_is_aborted_and_the_domain_goes_on(domain, store):
    path = store / "domain.save"
    needs_program("xz")
    with pytest.raises(SaveFailed, match=r"The timeout of 0.3 s was over") as failed:
        save_by_libvirt(domain, path, image_format="xz", timeout_seconds=0.3)
    assert failed.value.facts["guest"]["state"] == "running"
    assert (os.listdir(store), is_well(domain)) == ([], True)


def test_a_run_that_is_interrupted_leaves_the_domain_as_it_was(domain, store):
    async def interrupted():
        options = {"domain": domain.name, "uri": domain.host.uri, "image_format": "xz"}
        request = DomainSaveRequest(path=str(store / "domain.save"), **options)
        task = asyncio.ensure_future(run.save_domain(request, check_mode=False))
        await asyncio.sleep(0.5)
        task.cancel()
        await task

    needs_program("xz")
    with pytest.raises(SaveFailed, match="interrupted by a signal"):
        asyncio.run(interrupted())
    assert (os.listdir(store), is_well(domain)) == ([], True)


@pytest.fixture
def load_that_hangs(domain):
    """Stops the QEMU that libvirt starts, until the test is over."""
    before, over = set(domain._pids()), threading.Event()

    def stop():
        while not over.is_set():
            for pid in set(domain._pids()) - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            time.sleep(0.01)

    thread = threading.Thread(target=stop)
    yield thread.start
    over.set()
    thread.join()


@pytest.mark.full
def test_a_load_that_runs_out_of_time_is_ended_and_the_image_is_as_it_was(
    domain, store, load_that_hangs
):
    path = store / "domain.save"
    save_by_libvirt(domain, path, image_version=3)
    load_that_hangs()
    words = r"The timeout of 2 s was over while libvirt restored.*The image is ready"
    with pytest.raises(RestoreFailed, match=words) as failed:
        restore_by_libvirt(domain, path, timeout_seconds=2)
    assert failed.value.facts["guest"]["state"] == "absent"
    assert (state_of(domain), image_info(path)["version"]) == ("shut off", 3)


@pytest.mark.full
def test_after_a_load_that_was_ended_the_domain_comes_back(domain, store, monkeypatch):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    restored = vars(_connection.Connection)["restore_paused"]

    async def cancelled(self, *arguments, **options):
        task = asyncio.ensure_future(restored(self, *arguments, **options))
        await asyncio.sleep(0.2)
        task.cancel()
        await task

    with monkeypatch.context() as patch, pytest.raises(RestoreFailed, match="interrupted"):
        patch.setattr(_connection.Connection, "restore_paused", cancelled)
        restore_by_libvirt(domain, path)
    assert (state_of(domain), image_info(path)["state"]) == ("shut off", "ready")
    restore_by_libvirt(domain, path)
    assert is_well(domain)


class Killed(BaseException):
    """The run ends here, and nothing of it is put back."""


async def killed(*_arguments, **_options):
    raise Killed


def test_a_load_past_the_cache_that_the_next_run_finishes_leaves_no_direct_io(
    domain, store, monkeypatch
):
    """T2: the run that loaded it did not live to switch it off."""
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(restore._Restore, "_loaded", killed)
        restore_by_libvirt(domain, path, bypass_cache=True)
    result = restore_by_libvirt(domain, path)
    assert result["plan"]["action"] == "continue"
    assert "set direct-io off in QEMU" in result["actions"]
    domain.host.virsh("save", domain.name, path, "--image-format", "sparse")
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_a_guest_that_the_operator_paused_is_not_resumed(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    restore_by_libvirt(domain, path)
    domain.host.virsh("suspend", domain.name)
    assert restore_by_libvirt(domain, path)["changed"] is False
    assert state_of(domain) == "paused"


@pytest.mark.full
def test_a_guest_booted_after_a_load_that_died_is_not_taken_for_the_loaded_one(
    domain, store, monkeypatch
):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(restore._Restore, "_loaded", killed)
        restore_by_libvirt(domain, path)
    domain.host.virsh("destroy", domain.name)
    domain.host.virsh("start", domain.name, "--paused")
    with pytest.raises(Refused, match="started from elsewhere, and the image is stale"):
        restore_by_libvirt(domain, path)
    assert state_of(domain) == "paused"


@pytest.mark.full
def test_a_spent_image_that_was_loaded_once_more_is_spent_again(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    restore_by_libvirt(domain, path)
    domain.host.virsh("destroy", domain.name)
    options: dict[str, Any] = {"allow": frozenset({"spent"})}
    result = restore_by_libvirt(domain, path, run_state="paused", **options)
    assert (result["image"]["state"], image_info(path)["state"]) == ("spent", "spent")
    assert restore_by_libvirt(domain, path, **options)["plan"]["action"] == "continue"
    assert is_well(domain)


def test_a_daemon_of_another_host_is_refused(domain, store):
    with pytest.raises(Refused, match="is the daemon of another host"):
        save_by_libvirt(domain, store / "domain.save", uri="qemu+ssh://elsewhere/system")


def test_without_virsh_one_channel_does(domain, store, monkeypatch):
    path, which = store / "domain.save", shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "virsh" else which(name))
    assert save_by_libvirt(domain, path)["negotiated"]["parallel_channels"] == 1
    restore_by_libvirt(domain, path)
    assert is_well(domain)


@pytest.mark.parametrize("options", [{}, {"image_version": 3}, {"image_format": "raw"}])
def test_disks_that_have_changed_since_are_noticed(domain, store, options):
    """As when the domain was started and ended meanwhile: the image is ready, and stale."""
    path = store / "domain.save"
    save_by_libvirt(domain, path, **options)
    with domain.disk_path.open("r+b") as disk:
        disk.seek(-1, os.SEEK_END)
        disk.write(b"?")
    for check_mode in (True, False):
        with pytest.raises(Refused, match=r"Its disks changed since it was saved.*changed_disks"):
            restore_by_libvirt(domain, path, check_mode=check_mode)
    assert (state_of(domain), image_info(path)["state"]) == ("shut off", "ready")
    restore_by_libvirt(domain, path, allow=frozenset({"changed_disks"}))
    assert is_well(domain)


@pytest.mark.full
def test_an_image_whose_description_was_edited_comes_back_without_the_record(domain, store):
    path, xml = store / "domain.save", store.parent / "edited.xml"
    save_by_libvirt(domain, path)
    xml.write_text(domain.host.virsh("save-image-dumpxml", "--security-info", path))
    domain.host.virsh("save-image-define", path, xml)
    result = restore_by_libvirt(domain, path)
    assert result["plan"]["checks"]["disks_unchanged"] == "unknown"
    assert is_well(domain)
