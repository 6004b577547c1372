# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One client's session on a monitor socket, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    MonitorError,
    QmpCommandError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import (
    Monitor,
    MonitorLost,
    NoListener,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import with_monitor
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "qmp"


@pytest.fixture
def scripted(path):
    with ScriptedMonitor(path) as monitor:
        yield monitor


def connect(path, timeout_seconds=5.0):
    return asyncio.run(Monitor.connect(str(path), timeout_seconds))


def execute(path, *arguments, **options):
    return with_monitor(path, lambda monitor: monitor.execute(*arguments, **options))


# Connecting.


def test_a_socket_that_does_not_exist_has_no_listener(path):
    with pytest.raises(NoListener, match="Nothing listens") as missing:
        connect(path)
    assert missing.value.facts == {"qmp_socket": str(path)}


def test_a_socket_whose_server_is_gone_has_no_listener(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(NoListener, match="refused"):
        connect(path)


def test_a_peer_that_does_not_greet_probably_serves_another_client(path):
    started = time.monotonic()
    with (
        ScriptedMonitor(path, greeting=None),
        pytest.raises(MonitorError, match="another client") as held,
    ):
        connect(path, 0.1)
    assert not isinstance(held.value, NoListener)
    assert time.monotonic() - started < 2


def test_a_socket_full_of_waiting_clients_probably_serves_another_client(path):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(MonitorError, match="another client"):
            connect(path, 0.1)


def test_missing_permission_says_what_would_help(scripted, path):
    path.chmod(0)
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)  # root may connect to everything
    try:
        with pytest.raises(MonitorError, match=r"write permission.*become"):
            connect(path)
    finally:
        os.seteuid(own)


def test_a_path_longer_than_a_socket_address_is_named_as_the_cause(tmp_path):
    with pytest.raises(MonitorError, match="longer than the 107 bytes"):
        connect(tmp_path / ("x" * 108))


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.9\r\n", b"{}\r\n", b"\xff\x00\r\n"])
def test_a_peer_that_speaks_something_else_is_not_a_monitor(path, greeting):
    with (
        ScriptedMonitor(path, greeting=greeting),
        pytest.raises(MonitorError, match="did not speak QMP"),
    ):
        connect(path)


def test_an_event_that_overtakes_the_greeting_does_not_hide_the_monitor(path):
    class Overtaken(ScriptedMonitor):
        clients = 0

        def _serve_client(self, client: socket.socket) -> None:
            self.clients += 1
            if self.clients == 1:
                self.emit("MIGRATION", {"status": "failed"})
            super()._serve_client(client)

    monitor = Overtaken(path)
    with monitor:
        connect(path)
    assert monitor.clients == 2


def test_the_peers_pid_is_known(scripted, path):
    async def peer(monitor):
        return monitor.peer_pid

    assert with_monitor(path, peer) == os.getpid()


# Commands.


def test_a_command_carries_its_arguments_and_returns_its_value(scripted, path):
    scripted.expect("qom-get", {"path": "/machine"}).returns("pc")
    assert execute(path, "qom-get", {"path": "/machine"}) == "pc"


def test_qemus_refusal_keeps_its_class_and_words(scripted, path):
    scripted.expect("migrate").fails("GenericError", "State blocked by non-migratable device")
    with pytest.raises(QmpCommandError) as refused:
        execute(path, "migrate", {"uri": "file:x"})
    assert refused.value.message == "QEMU refused migrate: State blocked by non-migratable device"
    assert refused.value.facts == {
        "qmp_command": "migrate",
        "qmp_error_class": "GenericError",
        "qmp_error": "State blocked by non-migratable device",
    }


def test_a_command_that_is_not_answered_in_time_is_named(scripted, path):
    scripted.expect("stop").hangs()
    with pytest.raises(MonitorError, match="did not answer stop") as late:
        execute(path, "stop", timeout_seconds=0.05)
    assert late.value.facts["qmp_command"] == "stop"
    assert not isinstance(late.value, MonitorLost)


def test_a_link_that_breaks_during_a_command_is_lost(scripted, path):
    scripted.expect("stop").disconnects()
    with pytest.raises(MonitorLost, match="broke during stop"):
        execute(path, "stop")


def test_a_command_after_the_link_broke_is_lost_too(scripted, path):
    scripted.expect("stop").disconnects()

    async def twice(monitor):
        for _attempt in range(2):
            with pytest.raises(MonitorLost):
                await monitor.execute("stop")

    with_monitor(path, twice)
    assert scripted.names == ["stop"]


def test_the_human_monitors_answer_is_text(scripted, path):
    scripted.expect("human-monitor-command", {"command-line": "info status"}).returns("VM status")
    assert with_monitor(path, lambda monitor: monitor.human("info status")) == "VM status"


# File descriptors.


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_a_descriptor_reaches_qemu_with_its_own_flags(scripted, path, tmp_path, flags):
    fd = os.open(tmp_path / "image", flags | os.O_CREAT, 0o600)
    scripted.expect("add-fd", {"opaque": "mine"}).returns({"fdset-id": 7, "fd": 20})
    try:
        assert with_monitor(path, lambda monitor: monitor.add_fd(fd, None, "mine")) == 7
    finally:
        os.close(fd)
    (received,) = scripted.commands[0].fds
    assert received.target == str(tmp_path / "image")
    assert received.access_mode == flags


def test_a_second_descriptor_goes_into_the_same_set(scripted, path):
    scripted.expect("add-fd", {"fdset-id": 7, "opaque": "mine"}).returns({"fdset-id": 7, "fd": 21})
    assert with_monitor(path, lambda monitor: monitor.add_fd(0, 7, "mine")) == 7


def test_a_descriptor_can_be_given_by_name(scripted, path):
    scripted.expect("getfd", {"fdname": "vmfleet"}).returns({})
    with_monitor(path, lambda monitor: monitor.get_fd(0, "vmfleet"))
    assert len(scripted.commands[0].fds) == 1


def test_a_descriptor_cannot_be_passed_over_a_broken_link(scripted, path):
    scripted.expect("stop").disconnects()

    async def pass_one(monitor):
        with pytest.raises(MonitorLost):
            await monitor.execute("stop")
        with pytest.raises(MonitorLost):
            await monitor.add_fd(0, None, "mine")

    with_monitor(path, pass_one)


# Ending and beginning again.


def test_closing_never_fails(scripted, path):
    scripted.expect("stop").disconnects()

    async def close_three_times(monitor):
        with contextlib.suppress(MonitorLost):
            await monitor.execute("stop")
        for _attempt in range(2):
            await monitor.close()

    with_monitor(path, close_three_times)


def test_a_closed_session_leaves_the_socket_to_the_next_client(scripted, path):
    for _client in range(2):
        scripted.expect("query-status").returns({"status": "running"})
        assert execute(path, "query-status") == {"status": "running"}


def test_reconnecting_after_a_break_gives_a_working_session(scripted, path):
    scripted.expect("query-status").disconnects()
    scripted.expect("query-status").returns({"status": "running"})

    async def ask_again(monitor):
        with pytest.raises(MonitorLost):
            await monitor.execute("query-status")
        await monitor.reconnect()
        return await monitor.execute("query-status")

    assert with_monitor(path, ask_again) == {"status": "running"}


# Events.


@pytest.mark.parametrize("what_happens", ["emits", "disconnects"])
def test_waiting_for_events_ends_with_an_event_or_with_the_link(scripted, path, what_happens):
    migrate = scripted.expect("migrate").returns({})
    if what_happens == "emits":
        migrate.emits("MIGRATION", {"status": "active"})
    else:
        migrate.disconnects()

    async def wait(monitor):
        with monitor.migration_events() as events:
            await monitor.execute("migrate")
            started = time.monotonic()
            await events.wait(30)
            return time.monotonic() - started

    assert with_monitor(path, wait) < 5


def test_waiting_for_events_ends_after_its_time_and_ignores_other_events(scripted, path):
    scripted.expect("stop").emits("STOP").returns({})

    async def wait(monitor):
        with monitor.migration_events() as events:
            await monitor.execute("stop")
            started = time.monotonic()
            await events.wait(0.05)
            return time.monotonic() - started

    assert with_monitor(path, wait) >= 0.05


def test_events_are_heard_after_a_reconnect_too(scripted, path):
    scripted.expect("query-migrate").disconnects()
    scripted.expect("query-migrate").returns({}).emits("MIGRATION", {"status": "active"})

    async def wait(monitor):
        with monitor.migration_events() as events:
            with pytest.raises(MonitorLost):
                await monitor.execute("query-migrate")
            await monitor.reconnect()
            await monitor.execute("query-migrate")
            started = time.monotonic()
            await events.wait(30)
            return time.monotonic() - started

    assert with_monitor(path, wait) < 5
