# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which a real systemd starts guests, or would."""

from __future__ import annotations

import asyncio
import shlex

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import (
    record_of,
    starters,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_units import (
    observe,
    put_back,
    switch_off,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    resume_request,
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host

SERVICE = "libvirt-guests.service"
# What it says when it is stopped, which is when the real one suspends guests.
GUESTS_UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo stopped >>{log}'
[Install]
WantedBy=default.target
"""
QEMU_UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Restart=always
RestartSec=0.1
ExecStart={argv}
"""
A_DOMAIN = HostGuest(
    "web01", None, Source(uri="qemu:///system", domain="web01"), "running", None, 1, 1, 1
)


@pytest.fixture
def systemd(systemd_host):
    return systemd_host


async def kinds():
    return [one.kind for one in starters([A_DOMAIN], await observe([A_DOMAIN], "/none"))]


async def off():
    observed = await observe([A_DOMAIN], "/none")
    (starter,) = starters([A_DOMAIN], observed)
    record = record_of(starter, observed)
    await switch_off(record)
    await switch_off(record)
    return record


async def again(record):
    await put_back(record)
    return await put_back(record)


@pytest.mark.parametrize("enabled", [True, False], ids=["enabled", "started by hand"])
def test_libvirt_guests_is_masked_without_stopping_it_and_put_back_as_it_was(
    systemd, tmp_path, enabled
):
    log = tmp_path / "log"
    systemd.write_unit(SERVICE, GUESTS_UNIT.format(log=log))
    systemd.systemctl("daemon-reload")
    if enabled:
        systemd.systemctl("enable", SERVICE)
    systemd.systemctl("start", SERVICE)
    before = [systemd.show(SERVICE, name) for name in ("UnitFileState", "ActiveState")]
    assert before == ["enabled" if enabled else "disabled", "active"]

    assert systemd.run(kinds) == ["libvirt-guests"]
    record = systemd.run(off)
    assert systemd.show(SERVICE, "UnitFileState") == "masked"
    assert not log.exists()

    # As when the host goes down and comes up: it neither suspends nor starts anybody.
    systemd.systemctl("stop", SERVICE)
    assert not log.exists()
    assert systemd.run(kinds) == []

    systemd.run(again, record)
    assert [systemd.show(SERVICE, name) for name in ("UnitFileState", "ActiveState")] == before
    assert systemd.run(kinds) == ["libvirt-guests"]


def test_a_unit_that_restarts_its_guest_is_refused_or_stopped_in_place_of_qemu(
    systemd, tiny_guest, tmp_path
):
    guest = tiny_guest(32, 4, 4)
    argv = guest.argv()
    systemd.write_unit(
        "guest.service", QEMU_UNIT.format(argv=shlex.join(["/usr/bin/" + argv[0], *argv[1:]]))
    )
    systemd.systemctl("daemon-reload")
    systemd.systemctl("start", "guest.service")
    guest._wait(lambda: bool(guest.passes), 30, "make a pass")
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket])

    with pytest.raises(
        Refused, match=r"guest\.service.*nothing was touched|nothing was touched.*guest\.service"
    ):
        systemd.run(suspended, host, "refuse")
    assert guest.alive()

    plan = systemd.run(suspended, host, "disable")
    assert [one["kind"] for one in plan["competing"]] == ["unit"]
    assert not guest.alive()
    assert systemd.show("guest.service", "ActiveState") == "inactive"

    systemd.run(resumed, host)
    guest.wait_passes(2)
    assert guest.mismatches == []
    assert systemd.show("guest.service", "ActiveState") == "active"


async def suspended(host, competing):
    params = host.suspend_params(competing=competing)
    return (await suspend(suspend_request(params), check_mode=False)).as_result()["plan"]


async def resumed(host):
    outcome = await resume(resume_request(host.resume_params()), check_mode=False)
    return outcome.as_result()["changed"]


def test_without_systemd_nobody_is_asked():
    assert asyncio.run(kinds()) == []
