# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which a real systemd starts guests, or would."""

from __future__ import annotations

import shlex

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    resume_request,
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host

QEMU_UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Restart=always
RestartSec=0.1
ExecStart={argv}
"""


@pytest.fixture
def systemd(systemd_host):
    return systemd_host


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
    assert [one["kind"] for one in plan["competing"]] == ["unit_restart"]
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
