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
from ansible_collections.vmfleet.suspend.tests.support.competing_host import (
    competing_host,
    enable,
    reboot,
    shown,
)
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


async def suspended(host, competing):
    params = host.suspend_params(competing=competing)
    return (await suspend(suspend_request(params), check_mode=False)).as_result()["plan"]


async def resumed(host):
    outcome = await resume(resume_request(host.resume_params()), check_mode=False)
    return outcome.as_result()["changed"]
