# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which a real systemd starts guests, or would."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _suspend
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import find
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import Source
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    resume_request,
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.tests.support.competing_host import (
    competing_host,
    enable,
    reboot,
    shown,
)
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host

SERVICE = "libvirt-guests.service"
QEMU_UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Restart=always
RestartSec=0.1
ExecStart={argv}
"""


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    yield from competing_host(tmp_path, monkeypatch)


def unit_text(guest, *lines):
    words = guest.argv()
    return QEMU_UNIT.format(argv=shlex.join(["/usr/bin/" + words[0], *words[1:]])) + "\n".join(
        lines
    )


def start_in_a_unit(systemd, guest, name, text):
    systemd.write_unit(name, text)
    systemd.systemctl("daemon-reload")
    systemd.systemctl("start", name)
    guest.wait_served()
    guest.wait_passes(1)


def test_a_unit_that_restarts_its_guest_is_refused_or_stopped_in_place_of_qemu(
    systemd, tiny_guest, tmp_path
):
    guest = tiny_guest(32, 4, 4)
    start_in_a_unit(systemd, guest, "guest.service", unit_text(guest))
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket])

    with pytest.raises(
        Refused, match=r"guest\.service.*nothing was touched|nothing was touched.*guest\.service"
    ):
        systemd.run(suspended, host, "refuse")
    assert guest.alive()

    plan = systemd.run(suspended, host, "disable")
    assert [one["kind"] for one in plan["competing"]] == ["unit_restart"]
    assert not guest.alive()
    assert systemd.show("guest.service", "ActiveState") == "inactive"

    systemd.run(resumed, host)
    guest.wait_passes(2)
    assert guest.mismatches == []
    assert systemd.show("guest.service", "ActiveState") == "active"


@pytest.mark.parametrize("name", ["guest.service", r"guest@web\x2d01.service"])
def test_a_unit_that_the_boot_starts_is_kept_from_it_until_its_guest_was_resumed(
    systemd, tiny_guest, tmp_path, name
):
    guest = tiny_guest(32, 4, 4)
    text = unit_text(guest, "[Install]", "WantedBy=default.target", "")
    start_in_a_unit(systemd, guest, name, text.replace("Restart=always", "Restart=no"))
    enable(systemd, name)
    before = shown(systemd, name)
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket])

    plan = systemd.run(suspended, host, "disable")
    assert [one["kind"] for one in plan["competing"]] == ["unit_start"]
    reboot(systemd)
    systemd.systemctl("start", name)  # and an operator tries, too
    assert not guest.alive()

    assert systemd.run(resumed, host) is True
    guest.wait_passes(2)
    assert guest.mismatches == []
    assert shown(systemd, name) == before  # active, too: the guest is its own again
    assert systemd.run(resumed, host) is False


@pytest.fixture
def libvirt_guests(systemd):
    """The service, enabled and active; it does nothing."""
    systemd.write_unit(
        SERVICE,
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=/bin/true\nExecStop=/bin/true\n[Install]\nWantedBy=default.target\n",
    )
    enable(systemd, SERVICE)
    systemd.systemctl("start", SERVICE)
    return SERVICE


def test_libvirt_guests_is_switched_off_by_a_suspend_and_on_again_by_the_resume(
    systemd, libvirt_guests, tiny_guest, tmp_path, monkeypatch
):
    guest = tiny_guest(32, 4, 4)
    start_in_a_unit(
        systemd, guest, "guest.service", unit_text(guest).replace("Restart=always", "Restart=no")
    )
    monkeypatch.setattr(_suspend, "find", find_as_domains)
    before = shown(systemd, libvirt_guests)
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket])
    with pytest.raises(Refused, match=r"nothing was touched.*libvirt-guests"):
        systemd.run(suspended, host, "refuse")
    assert shown(systemd, libvirt_guests) == before
    assert guest.alive()

    plan = systemd.run(suspended, host, "disable")
    assert [one["kind"] for one in plan["competing"]] == ["libvirt_guests"]
    off = shown(systemd, libvirt_guests)
    assert (off["ExecStop"], off["ActiveState"]) == ("", "active")
    reboot(systemd)
    assert shown(systemd, libvirt_guests)["ExecStop"] == ""

    assert systemd.run(resumed, host) is True
    guest.wait_passes(2)
    assert shown(systemd, libvirt_guests) == before
    assert systemd.run(resumed, host) is False


async def find_as_domains(_uri, guests, *others):
    """Who competes, were these guests libvirt's."""
    domains = [
        replace(guest, source=Source(uri="qemu:///system", domain=guest.name), persistent=True)
        for guest in guests
    ]
    return await find("qemu:///system", domains, *others)


async def suspended(host, competing):
    params = host.suspend_params(competing=competing)
    return (await suspend(suspend_request(params), check_mode=False)).as_result()["plan"]


async def resumed(host):
    outcome = await resume(resume_request(host.resume_params()), check_mode=False)
    return outcome.as_result()["changed"]
