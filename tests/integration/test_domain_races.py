# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves of domains while somebody else, or libvirt itself, does something at the same moment.

Each would lose a guest, or lie about one, without the guard it is called after.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import libvirt
import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import LibvirtError, Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._connection import Connection
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _domain_run as run
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import image_info, leftovers
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_as_managed,
    restore_by_libvirt,
    save_as_managed,
    save_by_libvirt,
)

from .test_domains import (
    Killed,
    ask_qemu,
    autostarts,
    is_well,
    killed,
    state_of,
    wait_for_a_job_on,
)

SAVE = vars(Connection)["save"]


def why_off(domain):
    return str(domain.host.virsh("domstate", "--reason", domain.name)).strip()


def test_libvirt_goes_on_when_virsh_is_killed_and_the_image_is_waited_for(
    domain, store, monkeypatch
):
    path = store / "domain.save"

    async def virsh_dies(self, uuid, hidden, **options):
        pid = domain.pid
        os.kill(pid, signal.SIGSTOP)  # the save takes as long as this lasts
        task = asyncio.ensure_future(SAVE(self, uuid, hidden, **options))
        children: list[str] = []
        while not children:
            await asyncio.sleep(0.05)
            found = subprocess.run(
                ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            children = [line for line in found.splitlines() if "virsh" in line and hidden in line]
        await asyncio.sleep(1)
        os.kill(int(children[0].split()[0]), signal.SIGKILL)
        asyncio.get_running_loop().call_later(2, os.kill, pid, signal.SIGCONT)
        await task

    monkeypatch.setattr(Connection, "save", virsh_dies)
    result = save_by_libvirt(domain, path, parallel_channels=2)
    assert "libvirt had saved it when this came up" in " ".join(result["actions"])
    assert (why_off(domain), image_info(path)["state"]) == ("shut off (saved)", "ready")
    restore_by_libvirt(domain, path)
    assert is_well(domain)


def test_a_failed_managed_save_past_the_cache_leaves_no_trap(
    domain,
    managed_saves,
    sparse,
):
    daemon = domain.host.enter.split()[1]
    mount = ["nsenter", daemon, "--mount", "mount", "-t", "tmpfs", "-o", "size=4M,mode=0700"]
    subprocess.run([*mount, "tmpfs", "/var/lib/libvirt/qemu/save"], check=True)
    try:
        with pytest.raises(SaveFailed, match="The domain is running, as libvirt left it"):
            save_as_managed(domain, qemu_conf=sparse, bypass_cache=True)
    finally:
        unmount = ["nsenter", daemon, "--mount", "umount", "/var/lib/libvirt/qemu/save"]
        subprocess.run(unmount, check=True)
    assert ask_qemu(domain, "query-migrate-parameters")["direct-io"] is False
    domain.host.virsh("managedsave", domain.name)
    assert why_off(domain) == "shut off (saved)"
    restore_as_managed(domain)
    assert is_well(domain)


def test_what_libvirt_finished_is_not_published_once_the_disks_moved_on(domain, store, monkeypatch):
    path = store / "domain.save"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run._Save, "_finish", killed)
        save_by_libvirt(domain, path)
    assert leftovers(store) == [".domain.save.partial"]
    os.utime(domain.disk_path)  # the domain ran meanwhile, and wrote
    with pytest.raises(Refused, match=r"was written since.*the image is stale"):
        save_by_libvirt(domain, path)
    assert not path.exists()


@pytest.mark.full
def test_a_leftover_is_published_as_it_would_have_been(domain, store, monkeypatch):
    path = store / "domain.save"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run._Save, "_finish", killed)
        save_by_libvirt(domain, path, image_version=3)
    planned = save_by_libvirt(domain, path, image_version=3, check_mode=True)
    assert "would be finished" in planned["msg"]
    assert save_by_libvirt(domain, path, image_version=3)["changed"] is True
    assert image_info(path)["version"] == 3
    checks = restore_by_libvirt(domain, path)["plan"]["checks"]
    assert checks["disks_unchanged"] == "yes"
    assert is_well(domain)


@pytest.mark.full
def test_autostart_for_the_next_start_alone_is_held_too(domain, store):
    if not hasattr(libvirt.virDomain, "autostartOnce"):
        pytest.skip("this libvirt-python knows no autostart once (11.2 does)")
    domain.host.virsh("autostart", "--once", domain.name)
    assert save_by_libvirt(domain, store / "a.save", check_mode=True)["plan"]["holds_autostart"]
    save_by_libvirt(domain, store / "a.save")
    domain.host.restart(fresh=True)
    assert state_of(domain) == "shut off"
    restore_by_libvirt(domain, store / "a.save")
    assert "Autostart Once: enable" in domain.host.virsh("dominfo", domain.name)
    assert is_well(domain)


@pytest.mark.full
def test_an_image_that_is_not_understood_is_kept_when_it_may_be_all_there_is(
    domain, store, monkeypatch
):
    strange = "<metadata><x:n xmlns:x='urn:x'><![CDATA[<!DOCTYPE html>]]></x:n></metadata><memory "
    domain.host.virsh("destroy", domain.name)
    domain.host.define(domain.domain_xml().replace("<memory ", strange, 1))
    domain.host.virsh("start", domain.name)
    domain.wait_passes(1)

    async def interrupted_at_the_end(self, *arguments, **options):
        await SAVE(self, *arguments, **options)
        raise asyncio.CancelledError

    monkeypatch.setattr(Connection, "save", interrupted_at_the_end)
    with pytest.raises(SaveFailed, match="Keep that file") as failed:
        save_by_libvirt(domain, store / "domain.save")
    assert failed.value.facts["guest"]["state"] == "stopped"
    assert leftovers(store) == [".domain.save.partial"]
    domain.host.virsh("restore", str(store / ".domain.save.partial"))
    assert is_well(domain)


@pytest.mark.full
def test_the_image_of_a_domain_that_never_ran_since_is_not_given_up_for_a_new_one(domain, store):
    path = store / "domain.save"
    domain.host.virsh("suspend", domain.name)
    save_by_libvirt(domain, path)
    restore_by_libvirt(domain, path)
    assert (state_of(domain), image_info(path)["state"]) == ("paused", "ready")
    with pytest.raises(Refused, match="has not run since it was taken"):
        save_by_libvirt(domain, path)
    assert image_info(path)["state"] == "ready"
    save_by_libvirt(domain, path, overwrite=True)
    restore_by_libvirt(domain, path, run_state="running")
    assert is_well(domain)


@pytest.mark.full
def test_an_operators_save_is_not_aborted_when_our_time_is_over(domain, store, monkeypatch):
    theirs = store / "theirs.save"
    operator = []

    async def theirs_first(self, uuid, hidden, **options):
        command = ["virsh", "-c", domain.host.uri, "save", domain.name, str(theirs)]
        operator.append(subprocess.Popen([*command, "--image-format", "xz"]))
        await asyncio.to_thread(wait_for_a_job_on, domain, theirs)
        await SAVE(self, uuid, hidden, **{**options, "timeout_seconds": 0.5})

    monkeypatch.setattr(Connection, "save", theirs_first)
    with pytest.raises(SaveFailed, match="Somebody else saved it meanwhile, into a file"):
        save_by_libvirt(domain, store / "ours.save", timeout_seconds=600)
    assert operator[0].wait(60) == 0
    assert leftovers(store) == []
    domain.host.virsh("restore", str(theirs))
    assert is_well(domain)


def test_a_guest_that_somebody_else_saved_is_not_called_lost(domain, store, monkeypatch):
    async def theirs_wins(self, *_arguments, **_options):
        domain.host.virsh("managedsave", domain.name)
        raise LibvirtError("Saving", "domain is not running", 55)

    monkeypatch.setattr(Connection, "save", theirs_wins)
    with pytest.raises(SaveFailed, match="libvirt holds it in a managed save") as failed:
        save_by_libvirt(domain, store / "domain.save")
    assert failed.value.facts["guest"]["state"] == "shutoff"
    domain.host.virsh("start", domain.name)
    assert is_well(domain)


@pytest.mark.full
def test_an_image_of_a_domain_that_was_started_while_it_was_verified_gets_no_name(
    domain, store, monkeypatch
):
    verified = vars(run)["verify_written"]

    async def started_meanwhile(*arguments):
        domain.host.virsh("start", domain.name)
        return await verified(*arguments)

    monkeypatch.setattr(run, "verify_written", started_meanwhile)
    with pytest.raises(SaveFailed, match="Somebody started the domain while its") as failed:
        save_by_libvirt(domain, store / "domain.save")
    assert failed.value.facts["guest"]["state"] == "running"
    assert leftovers(store) == [".domain.save.partial"]
    monkeypatch.undo()
    save_by_libvirt(domain, store / "domain.save")
    assert leftovers(store) == []
    restore_by_libvirt(domain, store / "domain.save")
    assert is_well(domain)


@pytest.mark.full
def test_a_running_domain_with_a_managed_save_is_refused(domain, store, managed_saves):
    domain.host.virsh("managedsave", domain.name)
    held = managed_saves / f"{domain.name}.save"
    copy = held.read_bytes()
    domain.host.virsh("start", domain.name)
    held.write_bytes(copy)
    domain.host.restart(fresh=False)
    with pytest.raises(Refused, match="virsh managedsave-remove"):
        save_by_libvirt(domain, store / "domain.save")
    domain.host.virsh("managedsave-remove", domain.name)
    assert is_well(domain)


@pytest.mark.full
def test_another_domain_of_the_same_name_was_not_saved_before(domain, store):
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    old = domain.uuid
    domain.host.virsh("undefine", domain.name)
    domain.uuid = "11111111-2222-4333-8444-555555555555"
    domain.host.define(domain.domain_xml())
    with pytest.raises(Refused, match=f"is of {domain.name} .UUID {old}"):
        save_by_libvirt(domain, path)


@pytest.mark.full
def test_autostart_that_could_not_be_switched_on_again_is_told(domain, store, monkeypatch):
    domain.host.virsh("autostart", domain.name)
    switch = vars(Connection)["set_autostart"]

    async def busy(self, uuid, on):
        if on:
            raise LibvirtError("Setting autostart", "cannot acquire state change lock", 68)
        await switch(self, uuid, on)

    async def fails(self, *_arguments, **_options):
        raise LibvirtError("Saving", "No space left on device", 38)

    monkeypatch.setattr(Connection, "set_autostart", busy)
    monkeypatch.setattr(Connection, "save", fails)
    with pytest.raises(SaveFailed, match=r"autostart is still off.*virsh autostart"):
        save_by_libvirt(domain, store / "domain.save")
    assert not autostarts(domain)


@pytest.mark.full
def test_a_binding_that_cannot_say_the_format_has_virsh_do_it(domain, store, monkeypatch):
    monkeypatch.delattr(libvirt.virDomain, "saveParams")
    result = save_by_libvirt(domain, store / "domain.save", parallel_channels=1)
    assert result["image"]["image_format"] == "sparse"
    restore_by_libvirt(domain, store / "domain.save")
    assert is_well(domain)
