# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that runs again: its clock by a real agent, its place in the network, its readiness."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._agent import Agent
from ansible_collections.vmfleet.suspend.tests.support.agent_guest import AgentGuest
from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host, by_name

from .test_modules import run_module

STOOD_STILL_SECONDS = 3


@pytest.fixture
def agent_guest(tmp_path, linux_files):
    guest = AgentGuest(tmp_path, linux_files)
    guest.start()
    guest.wait_clock()
    wait_for_agent(guest)
    yield guest
    guest.kill()
    guest.close()


def wait_for_agent(guest):
    async def ping():
        (await Agent.open(str(guest.agent_socket), 2)).close()

    end = time.monotonic() + 90
    while True:
        try:
            return asyncio.run(ping())
        except Exception:
            assert time.monotonic() < end, "the agent does not answer"
            time.sleep(0.5)


def save_and_wait(guest, path):
    run_module("qemu_save", qmp_socket=guest.qmp_socket, path=path)
    time.sleep(STOOD_STILL_SECONDS)


def test_a_clock_that_stood_still_is_right_again_by_the_guests_own_agent(agent_guest, store):
    path = store / "agent.save"
    save_and_wait(agent_guest, path)
    left = run_module("qemu_restore", path=path, sync_clock=False)
    assert left["clock"] is None
    assert agent_guest.wait_clock() < -STOOD_STILL_SECONDS + 1

    save_and_wait(agent_guest, store / "again.save")
    restored = run_module("qemu_restore", path=store / "again.save", ready_check={"agent": True})
    clock = restored["clock"]
    assert clock["agent"] == "answered", clock
    assert clock["skew_before_seconds"] < -STOOD_STILL_SECONDS
    assert abs(clock["skew_after_seconds"]) <= 0.5
    assert restored["announced"] is True
    assert restored["ready"]["ready"] is True
    # The guest itself tells whole seconds.
    assert -1.9 < agent_guest.wait_clock() < 0.9


def test_a_guest_without_an_agent_is_told_as_such_and_one_that_is_not_ready_is_a_warning(
    tiny_guest, store
):
    guest = tiny_guest(name="web01").start()
    guest.wait_passes(1)
    path = store / "web01.save"
    run_module("qemu_save", qmp_socket=guest.qmp_socket, path=path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    check = {"tcp": f"127.0.0.1:{port}", "timeout": 1}
    restored = run_module("qemu_restore", path=path, ready_check=check)
    assert (restored["changed"], restored["clock"]["agent"]) == (True, "absent")
    assert restored["ready"]["ready"] is False
    assert f"port {port} of 127.0.0.1 does not answer" in restored["ready"]["reason"]
    assert goes_on(guest)


def test_an_agent_that_is_silent_keeps_no_host_from_its_guests(tiny_guest, tmp_path):
    port = (
        *("-device", "virtio-serial-pci,addr=0x10"),
        *("-chardev", f"socket,id=a0,path={tmp_path}/agent,server=on,wait=off"),
        *("-device", "virtserialport,chardev=a0,name=org.qemu.guest_agent.0"),
    )
    guests = [tiny_guest(name="silent", extra=port), tiny_guest(name="plain")]
    for guest in guests:
        guest.start()
        guest.wait_passes(1)
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    host.suspend()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready = {"tcp": f"127.0.0.1:{server.getsockname()[1]}"}
        found = by_name(host.resume(guests=[{"name": "plain", "ready_check": ready}]))
    assert found["plain"]["clock"]["agent"] == "absent"
    assert found["plain"]["ready"]["ready"] is True
    assert found["silent"]["clock"]["agent"] == "silent"
    assert {one["state"] for one in found.values()} == {"running"}
    assert all(goes_on(guest) for guest in guests)
