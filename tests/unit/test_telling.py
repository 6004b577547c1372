# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a use case while it runs, and what of that the host's log holds."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _syslog
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._syslog import logging
from ansible_collections.vmfleet.suspend.plugins.module_utils._telling import (
    RESTORING,
    SAVING,
    Event,
    Steps,
    about,
    listening,
    tell_bytes,
    tell_step,
)


def test_each_task_tells_of_its_own_guest():
    heard: list[Event] = []

    async def save(name):
        with about(SAVING, name, f"/images/{name}.save"):
            for step in ("writing", "verifying"):
                tell_step(step)
                await asyncio.sleep(0)

    async def both():
        await asyncio.gather(save("web01"), save("db01"))

    with listening(heard.append):
        asyncio.run(both())
    for name in ("web01", "db01"):
        mine = [(e.image, e.step, e.ended) for e in heard if e.guest == name]
        path = f"/images/{name}.save"
        assert mine == [
            (path, "writing", None),
            (path, "verifying", None),
            (path, "verifying", "done"),
        ]


def test_nothing_is_told_in_check_mode_nor_where_nothing_was_done():
    heard: list[Event] = []
    with listening(heard.append):
        with about(SAVING, "web01", None, silent=True):
            tell_step("writing")
        with about(SAVING, "web01", None):
            pass
        tell_step("of nobody")
        tell_bytes(1, 2)
    assert heard == []


def test_a_failure_is_told_with_its_words():
    heard: list[Event] = []
    with listening(heard.append), pytest.raises(VmfleetError), about(RESTORING, "web01", None):
        tell_step("loading")
        tell_bytes(5, 10)
        raise VmfleetError("QEMU ended.")
    assert [(e.step, e.done_bytes, e.ended, e.error) for e in heard] == [
        ("loading", None, None, None),
        ("loading", 5, None, None),
        ("loading", 5, "failed", "QEMU ended."),
    ]


def test_the_step_of_a_use_case_is_told_as_it_is_set():
    heard: list[Event] = []
    steps = Steps()
    with listening(heard.append), about(SAVING, "web01", None):
        steps.step = "writing"
        steps.step = "writing"
    assert steps.step == "writing"
    assert [(e.step, e.ended) for e in heard] == [("writing", None), ("writing", "done")]


@pytest.fixture
def syslog(tmp_path, monkeypatch):
    """The host's logger; gives the lines that it got."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        logger.bind(str(tmp_path / "log"))
        logger.setblocking(False)
        monkeypatch.setattr(_syslog, "_ADDRESS", str(tmp_path / "log"))

        def lines():
            found = []
            while True:
                try:
                    found.append(logger.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield lines


def test_each_step_is_a_line_of_the_hosts_log_and_counted_bytes_are_none(syslog):
    with logging(), about(SAVING, "web01", "/images/web01.save"):
        tell_step("writing the guest's state")
        tell_bytes(1, 2)
    head = f"vmfleet-suspend[{os.getpid()}]: save web01 (/images/web01.save): "
    assert syslog() == [f"<30>{head}writing the guest's state", f"<30>{head}done"]


def test_a_failure_is_one_line_of_its_own_severity_without_secrets(syslog):
    with logging(), pytest.raises(VmfleetError), about(RESTORING, "web01", None):
        tell_step("starting QEMU")
        raise VmfleetError("QEMU said:\nobject secret,id=s,data=hunter2")
    (_first, last) = syslog()
    assert last.startswith("<27>") and "restore web01: failed: QEMU said: " in last
    assert "hunter2" not in last


@pytest.mark.parametrize("full", [False, True], ids=["no logger", "a logger that hangs"])
def test_the_log_holds_up_nobody(tmp_path, monkeypatch, full):
    path = tmp_path / "log"
    monkeypatch.setattr(_syslog, "_ADDRESS", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        if full:
            logger.bind(str(path))
        with logging() as log:
            for _line in range(2000):
                log.write("x" * 1000)
