# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process it is, and whether exactly that one still lives."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._exit import wait_for_exit
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import (
    ProcessIdentity,
    boot_id,
    identify,
    is_alive,
    thread_group,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import identity_of

NO_PROCESS = 1 << 30


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_named_by_boot_pid_and_start(child):
    who = identity_of(child.pid)
    assert (who.boot_id, who.pid) == (boot_id(), child.pid)
    assert who.start_ticks >= identity_of(os.getpid()).start_ticks
    assert is_alive(who)


@pytest.mark.parametrize("pid", [0, -1, NO_PROCESS])
def test_no_process_has_no_identity(pid):
    assert identify(pid) is None


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}])
def test_a_pid_that_was_used_again_is_another_process(change):
    assert not is_alive(replace(identity_of(os.getpid()), **change))


def test_a_zombie_does_not_live(child):
    who = identity_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    assert not is_alive(who)


def test_a_process_whose_main_thread_ended_still_lives():
    """Another thread may still hold the guest's memory and its disks' locks."""
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print(flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(
        ["python3", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            end = time.monotonic() + 5
            while time.monotonic() < end and _state(process.pid) != "Z":
                time.sleep(0.005)
            assert _state(process.pid) == "Z"
            assert identify(process.pid) is not None
        finally:
            process.kill()


def _state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_a_program_may_have_blanks_and_parentheses_in_its_name(tmp_path):
    program = tmp_path / "a) b (c) 1"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as process:
        try:
            odd = identity_of(process.pid)
        finally:
            process.kill()
    assert odd.start_ticks >= identity_of(os.getpid()).start_ticks


def test_an_identity_survives_being_written_down():
    who = identity_of(os.getpid())
    assert ProcessIdentity.from_dict(who.as_dict()) == who


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"boot_id": "b", "pid": 1},
        {"boot_id": "b", "pid": "1", "start_ticks": 2},
        {"boot_id": 3, "pid": 1, "start_ticks": 2},
        {"boot_id": "b", "pid": 1, "start_ticks": None},
    ],
)
def test_what_is_not_an_identity_is_none(data):
    assert ProcessIdentity.from_dict(data) is None


def test_waiting_ends_when_the_process_does(child):
    who = identity_of(child.pid)
    threading.Timer(0.05, child.kill).start()
    assert asyncio.run(wait_for_exit(who, 5)) is True


def test_waiting_ends_when_the_time_is_over(child):
    assert asyncio.run(wait_for_exit(identity_of(child.pid), 0.03)) is False


def test_the_group_of_a_thread_is_its_process():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(thread_group(threading.get_native_id())))
    thread.start()
    thread.join()
    assert seen == [os.getpid()]


def test_a_thread_that_cannot_be_seen_has_no_group():
    assert thread_group(NO_PROCESS) is None
