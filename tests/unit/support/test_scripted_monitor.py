# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripted monitor, driven by qemu.qmp's own client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import typing as t
from pathlib import Path

import pytest
from qemu.qmp import ExecInterruptedError, ExecuteError, QMPClient

from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor

Body = t.Callable[[QMPClient], t.Awaitable[None]]


def with_client(monitor: ScriptedMonitor, body: Body, timeout_seconds: float = 10) -> None:
    """Run ``body`` with a connected client."""

    async def session() -> None:
        client = QMPClient("test")
        await client.connect(str(monitor.path))
        try:
            await body(client)
        finally:
            with contextlib.suppress(EOFError, OSError):
                await client.disconnect()

    asyncio.run(asyncio.wait_for(session(), timeout_seconds))


def test_answers_in_the_order_of_the_script_and_enables_oob(tmp_path: Path) -> None:
    async def body(client: QMPClient) -> None:
        assert await client.execute("query-status") == {"status": "running"}
        assert await client.execute("stop") == {}

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("query-status").returns({"status": "running"})
        monitor.expect("stop").returns({})
        with_client(monitor, body)
    assert monitor.names == ["query-status", "stop"]
    assert monitor.enabled_capabilities == ["oob"]


def test_fails_with_class_and_words(tmp_path: Path) -> None:
    async def body(client: QMPClient) -> None:
        with pytest.raises(ExecuteError, match="State blocked") as caught:
            await client.execute("migrate", {"uri": "x"})
        assert caught.value.error_class == "GenericError"

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("migrate", {"uri": "x"}).fails("GenericError", "State blocked")
        with_client(monitor, body)


def test_emits_events(tmp_path: Path) -> None:
    async def body(client: QMPClient) -> None:
        with client.listener("MIGRATION") as events:
            await client.execute("migrate")
            heard = [(await events.get())["data"] for _number in range(2)]
            assert heard == [{"status": "setup"}, {"status": "active"}]

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        expected = monitor.expect("migrate").emits("MIGRATION", {"status": "setup"})
        expected.returns({}).emits("MIGRATION", {"status": "active"})
        with_client(monitor, body)


def test_a_hanging_command_gets_no_answer(tmp_path: Path) -> None:
    async def body(client: QMPClient) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.execute("stop"), 0.1)

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("stop").hangs()
        with_client(monitor, body)


def test_a_broken_link_can_be_opened_again(tmp_path: Path) -> None:
    async def broken(client: QMPClient) -> None:
        with pytest.raises(ExecInterruptedError):
            await client.execute("migrate")

    async def again(client: QMPClient) -> None:
        assert await client.execute("query-migrate") == {}

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("migrate").disconnects()
        monitor.expect("query-migrate").returns({})
        with_client(monitor, broken)
        with_client(monitor, again)


def test_a_silent_greeting_leaves_the_client_waiting(tmp_path: Path) -> None:
    async def nothing(client: QMPClient) -> None:
        raise AssertionError("connected without a greeting")

    with ScriptedMonitor(tmp_path / "qmp", greeting=None) as monitor, pytest.raises(TimeoutError):
        with_client(monitor, nothing, timeout_seconds=0.2)


def test_received_descriptors_are_told_by_target_access_and_o_direct(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")

    async def body(client: QMPClient) -> None:
        for flags in (os.O_WRONLY, os.O_RDONLY | os.O_DIRECT):
            fd = os.open(image, flags)
            client.send_fd_scm(fd)
            await client.execute("add-fd")
            os.close(fd)
        await client.execute("add-fd")

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        for _number in range(3):
            monitor.expect("add-fd").returns({"fdset-id": 0, "fd": 9})
        with_client(monitor, body)
        written, read, none = (command.fds for command in monitor.commands)
    assert [(fd.target, fd.access_mode, fd.direct) for fd in (*written, *read)] == [
        (str(image), os.O_WRONLY, False),
        (str(image), os.O_RDONLY, True),
    ]
    assert none == ()


def test_like_qemu_it_keeps_only_the_newest_unclaimed_descriptor(tmp_path: Path) -> None:
    async def body(client: QMPClient) -> None:
        for name in ("a", "b"):
            fd = os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT)
            client.send_fd_scm(fd)
            await asyncio.sleep(0.05)  # so that they come in two messages
            os.close(fd)
        await client.execute("add-fd")

    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("add-fd").returns({"fdset-id": 0, "fd": 9})
        with_client(monitor, body)
    assert [fd.target for fd in monitor.commands[0].fds] == [str(tmp_path / "b")]


async def _stop(client: QMPClient) -> None:
    with contextlib.suppress(ExecuteError):
        await client.execute("stop")


@pytest.mark.parametrize(
    ("expected", "complaint"),
    [
        (["cont"], "unexpected command stop"),
        ([], "unexpected command stop"),
        (["stop", "cont"], r"never came: \['cont'\]"),
    ],
)
def test_a_script_that_was_not_followed_fails_the_test(
    tmp_path: Path, expected: list[str], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint), ScriptedMonitor(tmp_path / "q") as monitor:
        for name in expected:
            monitor.expect(name).returns({})
        with_client(monitor, _stop)
