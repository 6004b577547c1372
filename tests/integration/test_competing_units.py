# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's own systemd unit: seen to start it again, and held until a restore does."""

from __future__ import annotations

import shlex
import socket
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_off import (
    apply_disable,
    plan_disable,
    put_back,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._run import restore
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._run import save
from ansible_collections.vmfleet.suspend.tests.support.competing_host import (
    competing,
    competing_host,
    enable,
    reboot,
    shown,
)

GUEST = "guest.service"


@pytest.fixture
def host(tmp_path, monkeypatch):
    yield from competing_host(tmp_path, monkeypatch)


@pytest.fixture
def guest(tiny_guest):
    return tiny_guest(32, 4, 4)


def start_in_a_unit(host, guest, restart):
    argv = [f"/usr/bin/{guest.argv()[0]}", *guest.argv()[1:]]
    host.write_unit(
        GUEST,
        f"[Unit]\nDefaultDependencies=no\n[Service]\nRestart={restart}\nRestartSec=0.1\n"
        f"ExecStart={shlex.join(argv)}\n[Install]\nWantedBy=default.target\n",
    )
    enable(host, GUEST)
    host.systemctl("start", GUEST)
    deadline = time.monotonic() + 20
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(guest.qmp_socket) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    guest.wait_ready()


def found_of(host, guest):
    source = Source(qmp_socket=guest.qmp_socket)
    pid = host.pid_inside(guest.pid)
    return HostGuest("lone", None, source, "running", pid, 1, None, None)


async def do(work, request):
    return (await work(request, check_mode=False)).as_result()


def saving(guest, path, **options):
    return SaveRequest(str(path), guest.qmp_socket, qemu_conf="/nonexistent", **options)


def test_a_guests_unit_that_restarts_and_starts_with_the_host_is_found_both_ways(host, guest):
    start_in_a_unit(host, guest, "always")
    found = competing(host, found_of(host, guest))
    assert {kind: one.blocks for kind, one in found.items()} == {
        "unit_restart": True,
        "unit_start": True,
    }
    assert "default.target" in found["unit_start"].what
    named = competing(host, found_of(host, guest), named_units={"lone": "guest"})
    assert (named["unit_restart"].blocks, named["unit_restart"].handled) == (False, True)
    other = competing(host, found_of(host, guest), named_units={"lone": "other"})
    assert other["unit_restart"].blocks


def test_without_the_hold_a_boot_starts_a_fresh_guest_on_the_disks_of_the_saved_one(
    host, guest, store
):
    start_in_a_unit(host, guest, "no")
    host.run(do, save, saving(guest, store / "guest.save"))
    assert host.show(GUEST, "ActiveState") == "inactive"
    reboot(host)
    assert host.show(GUEST, "ActiveState") == "active"


@pytest.mark.parametrize("restart", ["no", "always"])
def test_with_the_hold_only_a_restore_starts_it_and_afterwards_it_is_as_before(
    host, guest, store, restart
):
    start_in_a_unit(host, guest, restart)
    before = shown(host, GUEST)
    found = found_of(host, guest)
    record = plan_disable(competing(host, found)["unit_start"])
    host.run(apply_disable, record)
    assert competing(host, found)["unit_start"].handled
    path = store / "guest.save"
    host.run(do, save, saving(guest, path, systemd_unit="guest"))
    reboot(host)
    host.systemctl("start", GUEST)  # an operator who forgot
    assert host.show(GUEST, "ActiveState") == "inactive"
    assert not guest.alive()
    host.run(do, restore, RestoreRequest(str(path)))
    assert host.show(GUEST, "ActiveState") == "active"
    host.run(put_back, record)
    assert shown(host, GUEST) == before
    guest.wait_passes(2)
    assert guest.mismatches == []


@pytest.mark.parametrize("name", ["guest@one.service", r"guest@web\x2d01.service"])
def test_an_instance_of_a_template_is_held_by_its_whole_name(host, name):
    host.write_unit(
        "guest@.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 600\n",
    )
    enable(host, name, "guest@.service")
    host.systemctl("start", name)
    pid = int(host.show(name, "MainPID"))
    one = HostGuest("one", None, Source(qmp_socket="/run/q"), "running", pid, 1, None, None)
    record = plan_disable(competing(host, one)["unit_start"])
    assert record["unit"] == name
    host.run(apply_disable, record)
    assert competing(host, one)["unit_start"].handled
    host.systemctl("stop", name)
    host.systemctl("start", name)
    assert host.show(name, "ActiveState") == "inactive"
    assert len(host.run(put_back, record)) == 2
    host.systemctl("start", name)
    assert host.show(name, "ActiveState") == "active"
