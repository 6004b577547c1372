# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's own managed saves, written and restored through the modules' use cases."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import LibvirtError, Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt import _connection, _managed
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import (
    _managed_run as managed_run,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_as_managed,
    save_as_managed,
    save_by_libvirt,
)

from .test_domains import ask_qemu, autostarts, is_well, state_of


@pytest.fixture
def domain(domain, managed_saves):
    yield domain
    for path in managed_saves.iterdir():
        domain.host.virsh("managedsave-remove", path.stem)


def test_a_domain_comes_back_from_a_managed_save_and_second_runs_change_nothing(
    domain, managed_saves
):
    path = managed_saves / f"{domain.name}.save"
    planned = save_as_managed(domain, check_mode=True)
    assert (state_of(domain), path.exists()) == ("running", False)
    saved = save_as_managed(domain)
    assert (saved["diff"], not domain.alive()) == (planned["diff"], True)
    assert saved["image"]["path"] == str(path)
    assert (saved["image"]["version"], saved["image"]["verified_before_quit"]) == (2, False)
    assert save_as_managed(domain)["changed"] is False
    planned = restore_as_managed(domain, check_mode=True)
    assert path.exists()
    back = restore_as_managed(domain)
    assert (back["diff"], back["guest"]["state"]) == (planned["diff"], "running")
    assert not path.exists()
    assert is_well(domain)
    assert restore_as_managed(domain)["changed"] is False


@pytest.mark.full
def test_qemu_conf_alone_says_how_a_managed_save_is_written(domain, sparse):
    result = save_as_managed(domain, qemu_conf=sparse, bypass_cache=True)
    assert (result["image"]["image_format"], result["image"]["layout"]) == ("sparse", "mapped-ram")
    assert "qemu.conf" in result["plan"]["reasons"]["image_version"]
    restore_as_managed(domain, bypass_cache=True)
    assert is_well(domain)


@pytest.mark.full
def test_direct_io_that_virsh_left_on_does_not_end_the_guest_in_a_managed_save(domain, sparse):
    """T2, as auto_start_bypass_cache leaves it."""
    domain.host.virsh("managedsave", domain.name)
    domain.host.virsh("start", domain.name, "--bypass-cache")
    assert ask_qemu(domain, "query-migrate-parameters")["direct-io"] is True
    result = save_as_managed(domain, qemu_conf=sparse)
    assert "set direct-io off in QEMU" in result["actions"]
    restore_as_managed(domain)
    assert is_well(domain)


@pytest.mark.full
def test_a_load_past_the_cache_does_not_leave_direct_io_on_for_virsh(domain, sparse):
    """T2 again: a plain managed save by virsh would end the guest."""
    save_as_managed(domain, qemu_conf=sparse)
    assert "set direct-io off in QEMU" in restore_as_managed(domain, bypass_cache=True)["actions"]
    domain.host.virsh("managedsave", domain.name)
    domain.host.virsh("start", domain.name)
    assert is_well(domain)


def test_autostart_stays_on_and_brings_the_guest_back_after_a_reboot(domain):
    domain.host.virsh("autostart", domain.name)
    save_as_managed(domain)
    assert autostarts(domain)
    domain.host.restart(fresh=True)
    assert is_well(domain)
    assert restore_as_managed(domain)["changed"] is False


def test_the_file_is_gone_before_the_first_instruction(domain, managed_saves, monkeypatch):
    save_as_managed(domain)
    seen = []

    async def resume(self, uuid):
        seen.append((os.listdir(managed_saves), state_of(domain)))

    monkeypatch.setattr(_connection.Connection, "resume", resume)
    restore_as_managed(domain)
    assert seen == [([], "paused")]


def test_a_run_that_dies_before_the_resume_is_finished_by_the_next(domain, monkeypatch):
    save_as_managed(domain)

    class Killed(BaseException):
        pass

    async def dies(*_arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(_connection.Connection, "resume", dies)
        restore_as_managed(domain)
    assert state_of(domain) == "paused"
    result = restore_as_managed(domain)
    assert (result["plan"]["action"], result["changed"]) == ("continue", True)
    assert "vmfleet" not in domain.host.virsh("dumpxml", "--inactive", domain.name)
    assert is_well(domain)


@pytest.mark.full
def test_a_paused_domain_stays_paused(domain):
    domain.host.virsh("suspend", domain.name)
    save_as_managed(domain)
    assert restore_as_managed(domain)["guest"]["state"] == "paused"
    assert restore_as_managed(domain)["changed"] is False
    assert restore_as_managed(domain, run_state="running")["changed"] is True
    assert is_well(domain)


def test_a_file_that_libvirt_would_throw_away_for_a_fresh_boot_is_refused(domain, managed_saves):
    save_as_managed(domain)
    path = managed_saves / f"{domain.name}.save"
    whole = path.read_bytes()
    path.write_bytes(b"LibvirtQemudPart" + whole[16:])
    with pytest.raises(Refused, match=r"no whole image.*boot the domain afresh in its place"):
        restore_as_managed(domain)
    assert (path.exists(), state_of(domain)) == (True, "shut off")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match="libvirt was not asked to load it"):
        restore_as_managed(domain)
    path.write_bytes(whole)
    restore_as_managed(domain)
    assert is_well(domain)


def test_a_managed_save_beside_a_running_domain_is_refused(domain, managed_saves):
    """As a copy that somebody put back by hand: libvirt would restore it at the next start."""
    path = managed_saves / f"{domain.name}.save"
    save_as_managed(domain)
    copy = path.read_bytes()
    restore_as_managed(domain)
    path.write_bytes(copy)
    domain.host.restart(fresh=False)
    with pytest.raises(Refused, match="managedsave-remove"):
        restore_as_managed(domain)
    assert state_of(domain) == "running"


def test_a_domain_that_libvirt_holds_in_a_managed_save_is_not_saved_to_a_file(domain, store):
    save_as_managed(domain)
    with pytest.raises(Refused, match="holds it in a managed save"):
        save_by_libvirt(domain, store / "domain.save")
    restore_as_managed(domain)


def test_without_a_managed_save_no_domain_is_booted_afresh(domain):
    domain.host.virsh("destroy", domain.name)
    with pytest.raises(Refused, match="would boot it afresh"):
        restore_as_managed(domain)
    with pytest.raises(Refused, match="libvirt holds no managed save of it"):
        save_as_managed(domain)


def test_a_transient_domain_has_no_managed_save(domain):
    domain.host.virsh("undefine", domain.name)
    with pytest.raises(Refused, match=r"transient.*Give a path in place of managed"):
        save_as_managed(domain)
    assert is_well(domain)
    domain.host.define(domain.domain_xml())


def test_a_save_that_runs_out_of_time_leaves_the_guest_running(domain, managed_saves, monkeypatch):
    async def too_slow(self, uuid, **_options):
        raise LibvirtError("The managed save", "aborted", 78)

    monkeypatch.setattr(_connection.Connection, "managed_save", too_slow)
    with pytest.raises(SaveFailed, match="The domain is running, as libvirt left it") as failed:
        save_as_managed(domain)
    assert failed.value.facts["guest"]["state"] == "running"
    assert (os.listdir(managed_saves), is_well(domain)) == ([], True)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+ssh://elsewhere/system", "must run on the daemon's own host"),
        ("qemu:///embed?root=/srv", "must run on the daemon's own host"),
    ],
)
def test_a_daemon_whose_files_are_elsewhere_is_refused(uri, words):
    with pytest.raises(Refused, match=words):
        _managed.managed_save_path(uri, "web01")


def test_a_sessions_daemon_keeps_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(Refused, match="was built for another place"):
        _managed.managed_save_path("qemu:///session", "web01")
    directory = tmp_path / "libvirt" / "qemu" / "save"
    directory.mkdir(parents=True)
    found = _managed.managed_save_path("qemu:///session", "web01")
    assert Path(found) == directory / "web01.save"


@pytest.mark.full
def test_a_note_that_outlived_its_run_resumes_nobody(domain, monkeypatch):
    save_as_managed(domain)

    class Killed(BaseException):
        pass

    async def dies(*_arguments, **_options):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(_connection.Connection, "start_paused", dies)
        patch.setattr(managed_run._ManagedRestore, "_undo", dies)
        restore_as_managed(domain)
    domain.host.virsh("start", domain.name)
    domain.host.virsh("destroy", domain.name)
    domain.host.virsh("start", domain.name, "--paused")
    assert restore_as_managed(domain)["changed"] is False
    assert state_of(domain) == "paused"
    domain.host.virsh("resume", domain.name)
    restore_as_managed(domain)
    assert "vmfleet" not in domain.host.virsh("dumpxml", "--inactive", domain.name)


def test_a_signal_after_the_load_does_not_leave_the_guest_half_restored(domain, monkeypatch):
    save_as_managed(domain)
    start = vars(_connection.Connection)["start_paused"]

    async def interrupted(self, *arguments, **options):
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await start(self, *arguments, **options)

    monkeypatch.setattr(_connection.Connection, "start_paused", interrupted)
    assert restore_as_managed(domain, bypass_cache=True)["guest"]["state"] == "running"
    assert is_well(domain)
