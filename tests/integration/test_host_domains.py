# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole host whose guests are libvirt's, alone and beside guests behind monitors."""

from __future__ import annotations

import asyncio

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _saving
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._discovery import discover
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._outcome import HostFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._single import save_one
from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_MANY
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host, by_name
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest

EIGHT = 8
NVME = ("-drive", "if=none,id=n0,driver=null-co", "-device", "nvme,drive=n0,serial=1,addr=0x10")


@pytest.fixture
def domains(libvirt_host, tmp_path):
    """Eight, each of which has filled its memory; two are special."""
    all_of_them = [
        LibvirtTinyGuest(tmp_path, libvirt_host, name=f"d{number}", **ONE_OF_MANY)
        for number in range(EIGHT)
    ]
    for domain in all_of_them[:-1]:
        domain.start()
    libvirt_host.virsh("autostart", "d0")
    transient = all_of_them[-1]
    xml = tmp_path / "transient.xml"
    xml.write_text(transient.domain_xml())
    libvirt_host.virsh("create", str(xml))
    for domain in all_of_them:
        domain.wait_passes(1)
    yield all_of_them
    for domain in all_of_them:
        domain.close()
        if domain is not transient:
            libvirt_host.virsh("undefine", domain.name)


@pytest.fixture
def host(domains, tmp_path, managed_saves):
    return Host(tmp_path, uri=domains[0].host.uri)


def states(result):
    return {name: guest["state"] for name, guest in by_name(result).items()}


def well(domain):
    """Whether it goes on from where it was."""
    domain.wait_passes(2)
    return domain.host.virsh("domstate", domain.name).strip() == "running" and not domain.mismatches


def autostarts(domain):
    return "Autostart:      enable" in domain.host.virsh("dominfo", domain.name)


def test_a_domain_that_cannot_be_saved_is_known_beforehand(libvirt_host, tmp_path):
    """libvirt itself finds out only when it tries."""
    domain = LibvirtTinyGuest(tmp_path, libvirt_host, name="stuck")
    nvme = "".join(f"<qemu:arg value='{word}'/>" for word in NVME)
    xml = domain.domain_xml()
    xml = xml.replace(
        "<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' "
    )
    xml = xml.replace("</domain>", f"<qemu:commandline>{nvme}</qemu:commandline></domain>")
    libvirt_host.define(xml)
    libvirt_host.virsh("start", domain.name)
    domain.wait_passes(1)
    try:
        (found,) = asyncio.run(discover([], libvirt_host.uri)).guests
        assert "nvme" in str(found.cannot_save)
        assert found.pid == domain.pid
        host = Host(tmp_path, uri=libvirt_host.uri)
        with pytest.raises(Refused, match=r"nothing was touched.*stuck: .*nvme"):
            host.suspend()
        result = host.suspend(guests=[{"name": "stuck", "policy": "leave"}])
        assert states(result) == {"stuck": "left"}
        assert well(domain)
    finally:
        domain.close()
        libvirt_host.virsh("undefine", domain.name)


def test_a_domain_that_ends_when_its_turn_comes_is_lost_and_an_older_image_is_not_taken_for_it(
    libvirt_host, tmp_path, monkeypatch
):
    domain = LibvirtTinyGuest(tmp_path, libvirt_host, name="ends").start()
    domain.wait_passes(1)
    host = Host(tmp_path, uri=libvirt_host.uri)

    async def end_first(request, *, check_mode):
        libvirt_host.virsh("destroy", domain.name)
        return await save_one(request, check_mode=check_mode)

    try:
        image = by_name(host.suspend())["ends"]["image"]["path"]
        libvirt_host.virsh("start", domain.name)  # past its image
        monkeypatch.setattr(_saving, "save_one", end_first)
        with pytest.raises(HostFailed, match=f"{image} is an older image of it, and stale") as told:
            host.suspend()
        (lost,) = told.value.facts["guests"]
        assert (lost["state"], lost["stale_image"]) == ("crashed", image)
        with pytest.raises(HostFailed, match="its RAM is lost"):
            host.resume()
        assert libvirt_host.virsh("domstate", domain.name).strip() == "shut off"
    finally:
        domain.close()
        libvirt_host.virsh("undefine", domain.name)


def test_all_domains_are_suspended_and_after_a_reboot_resumed_and_a_second_run_changes_nothing(
    domains, host, tiny_guest
):
    beside = tiny_guest(name="beside").start()
    beside.wait_passes(1)
    options = {
        "qmp_sockets": [beside.qmp_socket],
        "guests": [
            {"name": "d1", "managed": True},
            {"name": "d2", "group": "pair"},
            {"name": "d3", "group": "pair"},
        ],
    }
    foreseen = host.suspend(check_mode=True, **options)
    assert [one["kind"] for one in foreseen["plan"]["competing"]] == ["libvirt_autostart"]
    suspended = host.suspend(**options)
    assert suspended["diff"] == foreseen["diff"]
    assert states(suspended) == dict.fromkeys(
        [f"d{n}" for n in range(EIGHT)] + ["beside"], "verified"
    )
    assert domains[0].host.virsh("list", "--name").split() == []
    assert not autostarts(domains[0])
    assert host.suspend(**options)["changed"] is False

    domains[0].host.restart(fresh=True)  # as after a reboot
    resumed = host.resume()
    assert set(states(resumed).values()) == {"running"}
    assert resumed["journal"]["closed"] == "resumed"
    assert all(well(domain) for domain in domains)
    assert goes_on(beside)
    assert autostarts(domains[0])
    assert host.resume()["changed"] is False
