# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting a program that outlives this one, and hearing how it ended if it did not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    DeadlineExceeded,
    Refused,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _launch
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._deadline import Deadline
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import (
    LaunchFailed,
    launch,
    resolve_program,
    systemd_prefix,
    wait_for_monitor,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import identify
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor

SLEEP = ("sleep", "600")
IGNORES_SIGTERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", file=sys.stderr, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch):
    """The programs of these tests are children of the launcher wherever the tests run."""
    monkeypatch.setattr(_launch, "_SYSTEM_MANAGER", "/nonexistent")
    monkeypatch.setattr(_launch, "_USER_MANAGER", "/nonexistent/{}")


def with_launched(argv, work):
    """Run ``work`` on a program; what is left of it is killed afterwards."""

    async def session():
        launched = await launch(argv)
        try:
            return await work(launched)
        finally:
            await launched.end()
            await launched.let_go()

    return asyncio.run(session())


async def until_ended(launched):
    while launched.exit_status() is None:
        await asyncio.sleep(0.002)


async def how_it_ended(launched):
    await until_ended(launched)
    return launched.exit_status(), launched.stderr_tail(), launched.describe_end()


# How it ends.


@pytest.mark.parametrize(
    ("script", "status", "said", "described"),
    [
        ("exit 0", 0, "", "QEMU exited 0 and said nothing"),
        ("echo no disk >&2; exit 3", 3, "no disk", "QEMU exited 3 and said: no disk"),
        ("kill -9 $$", -9, "", "QEMU was killed by signal 9 and said nothing"),
    ],
)
def test_its_end_and_its_words_are_known(script, status, said, described):
    assert with_launched(["sh", "-c", script], how_it_ended) == (status, said, described)


def test_only_the_end_of_many_words_is_kept():
    script = "yes noise | head -c 100000 >&2; echo the reason >&2; exit 1"
    _status, said, _described = with_launched(["sh", "-c", script], how_it_ended)
    assert said.endswith("the reason")
    assert len(said) < 10000


def test_words_that_are_not_text_do_no_harm():
    script = r"printf 'bad \377 byte' >&2; exit 1"
    assert "bad \ufffd byte" in with_launched(["sh", "-c", script], how_it_ended)[1]


def test_while_it_runs_there_is_no_exit_status():
    async def status(launched):
        return launched.exit_status()

    assert with_launched(SLEEP, status) is None


def test_a_program_that_cannot_be_executed_says_so(tmp_path):
    program = tmp_path / "qemu"
    program.write_bytes(b"\x7fELF not really")
    program.chmod(0o755)
    status, said, _described = with_launched([str(program)], how_it_ended)
    assert (status, said) == (127, f"{program}: Exec format error")


def test_a_launcher_that_cannot_work_is_no_qemu(monkeypatch):
    monkeypatch.setattr(_launch, "LAUNCHER", "raise SystemExit('no more processes')")
    with pytest.raises(LaunchFailed, match="ended before it began one: no more processes"):
        asyncio.run(launch(SLEEP))


def test_a_launcher_that_ends_while_it_is_let_go_does_no_harm(monkeypatch):
    """Python 3.8 tells of it; later ones look first."""

    def ended():
        raise ProcessLookupError

    async def let_go():
        launched = await launch(["true"])
        await until_ended(launched)
        monkeypatch.setattr(launched._launcher, "kill", ended)
        await launched.let_go()

    asyncio.run(let_go())


# What it is started with.


def test_arguments_are_passed_as_they_are_without_a_shell():
    argv = [sys.executable, "-c", "import sys; sys.exit(sys.argv[1:] != ['$HOME *', ''])"]
    assert with_launched([*argv, "$HOME *", ""], how_it_ended)[0] == 0


def test_its_input_and_output_are_closed_off():
    script = "test ! -t 0 && ! read line && echo noise"
    assert with_launched(["sh", "-c", script], how_it_ended)[0] == 0


def test_it_is_in_a_session_of_its_own():
    async def session(launched):
        return os.getsid(launched.pid) == launched.pid

    assert with_launched(SLEEP, session)


def test_it_dies_of_a_broken_pipe_as_any_program_does():
    script = "trap - PIPE; kill -PIPE $$; exit 5"
    assert with_launched(["sh", "-c", script], how_it_ended)[0] == -signal.SIGPIPE


# Its life.


def test_ending_it_leaves_nothing():
    async def end(launched):
        await launched.end()
        return launched.exit_status(), identify(launched.pid)

    assert with_launched(SLEEP, end) == (-signal.SIGTERM, None)


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(_launch, "_END_SECONDS", 0.05)

    async def end(launched):
        while not launched.stderr_tail():  # it ignores the signal from then on
            await asyncio.sleep(0.002)
        await launched.end()
        await until_ended(launched)
        return launched.exit_status()

    assert with_launched([sys.executable, "-c", IGNORES_SIGTERM], end) == -signal.SIGKILL


def test_it_outlives_the_event_loop():
    async def start():
        launched = await launch(SLEEP)
        await launched.let_go()
        return launched.pid

    pid = asyncio.run(start())
    try:
        assert identify(pid) is not None
    finally:
        os.kill(pid, signal.SIGKILL)


def test_it_outlives_this_program():
    collections = os.pathsep.join(sys.path)
    module = _launch.__name__
    script = (
        f"import asyncio\nfrom {module} import launch\n"
        "async def start():\n"
        "    launched = await launch(['sleep', '600'])\n"
        "    await launched.let_go()\n"
        "    print(launched.pid)\n"
        "asyncio.run(start())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": collections},
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    pid = int(done.stdout)
    try:
        assert identify(pid) is not None
    finally:
        os.kill(pid, signal.SIGKILL)


# Waiting for its monitor.


def test_it_is_connected_to_as_soon_as_it_answers(tmp_path):
    async def connect(launched):
        # It listens already, but greets nobody until its main loop runs.
        asyncio.get_running_loop().call_later(0.05, stack.enter_context, listening)
        monitor = await wait_for_monitor(launched, str(tmp_path / "qmp"), Deadline(10))
        await monitor.close()

    with contextlib.ExitStack() as stack:
        listening = ScriptedMonitor(tmp_path / "qmp")
        with_launched(SLEEP, connect)


def test_a_qemu_that_ended_first_is_told_in_its_own_words(tmp_path):
    async def connect(launched):
        await wait_for_monitor(launched, str(tmp_path / "qmp"), Deadline(10))

    script = "echo qemu: could not open disk.img >&2; exit 1"
    with pytest.raises(LaunchFailed, match=r"exited 1 and said: qemu: could not open disk\.img"):
        with_launched(["sh", "-c", script], connect)


@pytest.mark.parametrize(
    ("start_seconds", "deadline_seconds", "error", "words"),
    [
        (0.03, 0, LaunchFailed, "does not answer"),
        (60, 0.03, DeadlineExceeded, "was starting"),
    ],
)
def test_a_qemu_that_never_answers_is_waited_for_until_the_time_is_over(
    tmp_path, monkeypatch, start_seconds, deadline_seconds, error, words
):
    monkeypatch.setattr(_launch, "_START_SECONDS", start_seconds)

    async def connect(launched):
        await wait_for_monitor(launched, str(tmp_path / "qmp"), Deadline(deadline_seconds))

    started = time.monotonic()
    with pytest.raises(error, match=words):
        with_launched(SLEEP, connect)
    assert time.monotonic() - started < 5


# Decisions.


@pytest.mark.parametrize(
    ("systemd_runs", "user_id", "words"),
    [
        (False, 0, ()),
        (False, 1000, ()),
        (True, 0, ("systemd-run", "--scope", "--quiet", "--collect", "--")),
        (True, 1000, ("systemd-run", "--user", "--scope", "--quiet", "--collect", "--")),
    ],
)
def test_under_systemd_it_leaves_the_logins_scope(systemd_runs, user_id, words):
    assert systemd_prefix(systemd_runs, user_id) == words


def test_a_program_is_found_in_the_path_or_by_its_own(tmp_path, monkeypatch):
    program = tmp_path / "qemu-test"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_program("qemu-test") == str(program)
    assert resolve_program(str(program)) == str(program)


@pytest.mark.parametrize("program", ["qemu-that-does-not-exist", "/nonexistent/qemu", "plain"])
def test_a_program_that_cannot_be_run_is_refused_with_the_way_out(tmp_path, monkeypatch, program):
    (tmp_path / "plain").touch(mode=0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="Install QEMU"):
        resolve_program(program)
    with pytest.raises(Refused, match=program):
        asyncio.run(launch([program]))
