# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest that runs again: its clock by a real agent, its place in the network, its readiness."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import resume_request
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._outcome import HostFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._agent import Agent
from ansible_collections.vmfleet.suspend.plugins.module_utils._telling import Event, listening
from ansible_collections.vmfleet.suspend.tests.support.agent_guest import (
    AgentDomain,
    AgentGuest,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host, by_name

from .test_modules import run_module

STOOD_STILL_SECONDS = 3
# QEMU announces a guest so often when it has loaded it, by itself.
OF_A_LOAD = 5


@pytest.fixture
def agent_guest(tmp_path, linux_files):
    guest = AgentGuest(tmp_path, linux_files)
    guest.start()
    guest.wait_clock()
    wait_for_agent(guest)
    yield guest
    guest.kill()
    guest.close()


@pytest.fixture
def agent_domain(tmp_path, linux_files, libvirt_host):
    guest = AgentDomain(tmp_path, linux_files, libvirt_host)
    guest.start()
    guest.wait_clock()
    ping = ("qemu-agent-command", guest.name, '{"execute": "guest-ping"}', "--timeout", "2")
    wait_until_answered(lambda: libvirt_host.virsh(*ping))
    yield guest
    guest.close()
    libvirt_host.virsh("undefine", guest.name)


def wait_for_agent(guest):
    async def ping():
        (await Agent.open(str(guest.agent_socket), 2)).close()

    wait_until_answered(lambda: asyncio.run(ping()))


def wait_until_answered(ping):
    def answered():
        with contextlib.suppress(Exception):
            ping()
            return True
        return False

    wait_until(answered, "answered by the agent")


def wait_until(condition, what):
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, f"not {what}"
        time.sleep(0.5)


def save_and_wait(path, **place):
    run_module("qemu_save", path=path, **place)
    time.sleep(STOOD_STILL_SECONDS)


def is_right(clock):
    assert clock["agent"] == "answered", clock
    assert clock["skew_before_seconds"] < -STOOD_STILL_SECONDS
    return abs(clock["skew_after_seconds"]) <= 0.5


def test_a_clock_that_stood_still_is_right_again_by_the_guests_own_agent(agent_guest, store):
    path = store / "agent.save"
    place = {"qmp_socket": agent_guest.qmp_socket}
    save_and_wait(path, **place)
    left = run_module("qemu_restore", path=path, sync_clock=False)
    assert left["clock"] is None
    assert agent_guest.wait_clock() < -STOOD_STILL_SECONDS + 1

    save_and_wait(store / "again.save", **place)
    restored = run_module("qemu_restore", path=store / "again.save", ready_check={"agent": True})
    assert is_right(restored["clock"])
    assert restored["announced"] is True
    assert restored["ready"]["ready"] is True
    # The guest itself tells whole seconds.
    assert -1.9 < agent_guest.wait_clock() < 0.9


@pytest.mark.full
def test_a_domains_agent_is_asked_through_libvirt_and_waited_for_by_others_as_before(
    agent_domain, store
):
    host = agent_domain.host
    place = {"domain": agent_domain.name, "uri": host.uri, "path": store / "agent.save"}
    save_and_wait(**place)
    restored = run_module("qemu_restore", ready_check={"agent": True}, **place)
    assert is_right(restored["clock"])
    assert restored["ready"]["ready"] is True
    # What libvirt knows of the domain; as a new one has it.
    known = (host.directory / "run" / "qemu" / f"{agent_domain.name}.xml").read_text()
    assert "<agentTimeout>-2</agentTimeout>" in known


def test_a_guest_without_an_agent_is_told_as_such_announced_and_not_ready_is_a_warning(
    tiny_guest, store
):
    wire = store / "wire.pcap"
    card = (
        *("-netdev", "hubport,id=n0,hubid=0", "-device", "e1000,netdev=n0,addr=0x10"),
        *("-object", f"filter-dump,id=d0,netdev=n0,file={wire}"),
    )
    guest = tiny_guest(name="web01", extra=card).start()
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
    assert restored["announced"] is True
    wait_until(lambda: announcements(wire) > OF_A_LOAD, "announced once more")


def announcements(wire):
    """RARP requests among what was written of a network."""
    return wire.read_bytes().count(b"\x80\x35\x00\x01")


@pytest.mark.full
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
    host.suspend(guests=[{"name": "silent", "priority": 10}])
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready = {"tcp": f"127.0.0.1:{server.getsockname()[1]}"}
        found = by_name(host.resume(guests=[{"name": "plain", "ready_check": ready}]))
    assert found["plain"]["clock"]["agent"] == "absent"
    assert found["plain"]["ready"]["ready"] is True
    silent = found["silent"]
    assert silent["clock"]["agent"] == "silent"
    # It comes back first, and its agent is waited for for 5 s.
    assert found["plain"]["began_seconds"] < silent["began_seconds"] + silent["actual_seconds"] + 4
    assert {one["state"] for one in found.values()} == {"running"}
    assert all(goes_on(guest) for guest in guests)


def test_a_signal_ends_the_wait_for_a_guest_that_is_not_ready_and_all_is_done_then(ran, tmp_path):
    guest = ran(name="web01")
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket])
    host.suspend()
    heard: list[Event] = []

    async def interrupted():
        check = {"tcp": "127.0.0.1:1", "agent": False, "timeout": 600}
        params = host.resume_params(guests=[{"name": "web01", "ready_check": check}])
        run = asyncio.ensure_future(resume(resume_request(params), check_mode=False))
        while not any(event.step.startswith("waiting for port 1") for event in heard):
            await asyncio.sleep(0.05)
        run.cancel()
        await run

    with listening(heard.append), pytest.raises(HostFailed, match="1 of 1 guests run again"):
        asyncio.run(interrupted())
    (image,) = host.store.iterdir()
    assert {(e.guest, e.image) for e in heard if e.verb == "look after"} == {("web01", str(image))}
    assert host.resume()["journal"]["closed"] == "resumed"
    assert goes_on(guest)
