# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program started in recorded surroundings: as that user or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _launch, _setting
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import launch
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launcher import (
    STAGE,
    stage_input,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._surroundings import (
    Surroundings,
    text_of,
)
from ansible_collections.vmfleet.suspend.tests.support.observing import observed

NOBODY, GROUP, GROUPS = 65534, 1000, (4, 36)
QEMU = "qemu-system-x86_64"
ODD = text_of(b"\xff\xed\xa0\x80 '\xc3\xa9\n")


def program(name):
    """Its file."""
    return os.path.realpath(shutil.which(name) or name)


SLEEP = (program("sleep"), "600")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch):
    """The programs of these tests are children of the launcher wherever the tests run."""
    monkeypatch.setattr(_launch, "_SYSTEM_MANAGER", "/nonexistent")
    monkeypatch.setattr(_launch, "_USER_MANAGER", "/nonexistent/{}")


@pytest.fixture
def open_directory():
    """A directory that every user may enter; pytest's are closed."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(os.path.realpath(name))


@pytest.fixture
def surroundings(open_directory):
    """This process's own, but for what every user may change."""
    own = observed(os.getpid())
    limits = {**own.limits, "RLIMIT_CORE": (0, own.limits["RLIMIT_CORE"][1])}
    return replace(
        own,
        argv=SLEEP,
        executable=SLEEP[0],
        cwd=str(open_directory),
        umask=0o27,
        limits=limits,
        environment={"PATH": "/bin:/usr/bin", "TZ": ODD},
    )


@pytest.fixture
def as_nobody(surroundings):
    return replace(surroundings, user_id=NOBODY, group_id=GROUP, groups=GROUPS)


def launched_in(surroundings, argv, work):
    """Run ``work`` on a program; what is left of it is killed afterwards."""

    async def session():
        launched = await launch(argv, surroundings)
        try:
            return await work(launched)
        finally:
            await launched.end()
            await launched.let_go()

    return asyncio.run(session())


async def as_seen(launched):
    return observed(launched.pid)


async def how_it_ended(launched):
    while launched.exit_status() is None:
        await asyncio.sleep(0.002)
    return launched.exit_status(), launched.stderr_tail()


def says(surroundings, script):
    """What a shell says, on standard error: its output is closed off."""
    return launched_in(surroundings, ["/bin/sh", "-c", f"exec >&2; {script}"], how_it_ended)


# As it was.


def test_what_is_started_from_a_record_gives_the_same_record(surroundings):
    (Path(surroundings.cwd) / os.fsdecode(ODD.encode("utf-8", "surrogateescape"))).touch()
    argv = (program("tail"), "-f", "/dev/null", ODD)
    recorded = replace(surroundings, argv=argv, executable=argv[0])
    assert launched_in(recorded, argv, as_seen) == recorded


@needs_root
def test_as_another_user_too(as_nobody):
    assert launched_in(as_nobody, SLEEP, as_seen) == as_nobody


@needs_root
def test_nothing_of_root_is_left(as_nobody):
    async def status(launched):
        with open(f"/proc/{launched.pid}/status", encoding="utf-8") as source:
            return dict(line.rstrip("\n").split(":\t", 1) for line in source)

    seen = launched_in(as_nobody, SLEEP, status)
    assert (seen["Uid"].split(), seen["Gid"].split()) == ([str(NOBODY)] * 4, [str(GROUP)] * 4)
    assert seen["Groups"].split() == [*map(str, GROUPS)]
    assert (int(seen["CapPrm"], 16), int(seen["CapEff"], 16)) == (0, 0)
    # What Python ignores and hands on; what else is ignored, this run was started so.
    ignored = int(seen["SigIgn"], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
@pytest.mark.parametrize("user", ["nobody", "as this run"])
def test_a_qemu_is_as_it_was(surroundings, as_nobody, user):
    if user == "nobody" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    given = as_nobody if user == "nobody" else surroundings
    argv = (program(QEMU), "-M", "none", "-nodefaults", "-nographic", "-S")
    # A QEMU makes its soft limit of files the hard one by itself (os-posix.c).
    files = given.limits["RLIMIT_NOFILE"][1]
    limits = {**given.limits, "RLIMIT_NOFILE": (files, files)}
    recorded = replace(given, argv=argv, executable=argv[0], limits=limits)
    assert launched_in(recorded, argv, as_seen) == recorded


def test_of_the_environment_it_gets_what_was_recorded_and_no_more(surroundings, monkeypatch):
    monkeypatch.setenv("VAULT_PASSWORD", "x")
    monkeypatch.setenv("LD_BIND_NOW", "1")
    recorded = replace(surroundings, environment={"PATH": "/bin:/usr/bin", "TMPDIR": "/var/tmp"})
    _status, said = says(recorded, "env")
    variables = dict(line.split("=", 1) for line in said.splitlines())
    shells_own = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {name: variables[name] for name in set(variables) - shells_own} == recorded.environment


def test_libraries_to_preload_are_for_the_program_alone(surroundings):
    """Python, which still is root, would complain of it as well."""
    recorded = replace(surroundings, environment={"LD_PRELOAD": "/nonexistent.so"})
    _status, said = launched_in(recorded, ["/bin/true"], how_it_ended)
    assert said.count("/nonexistent.so") == 1


def test_its_input_and_output_are_closed_off(surroundings):
    assert says(surroundings, "readlink /proc/$$/fd/0; ls /proc/$$/fd") == (
        0,
        "/dev/null\n0\n1\n2",
    )


def test_it_was_begun_when_the_launch_returns(surroundings):
    """No other process passes for it: a run that looks for this QEMU looks for its argv."""

    async def executable(launched):
        return os.readlink(f"/proc/{launched.pid}/exe")

    for _attempt in range(3):
        assert launched_in(surroundings, SLEEP, executable) == SLEEP[0]


def test_a_program_named_by_a_relative_path_is_this_runs(surroundings, tmp_path, monkeypatch):
    shutil.copy(SLEEP[0], tmp_path / "program")
    monkeypatch.chdir(tmp_path)
    seen = launched_in(surroundings, ["./program", "600"], as_seen)
    assert seen.executable == os.path.realpath(tmp_path / "program")


def test_a_removed_program_that_is_there_again_is_started(surroundings, open_directory):
    program = open_directory / "qemu"
    shutil.copy(SLEEP[0], program)

    async def removed(launched):
        program.unlink()
        return observed(launched.pid)

    recorded = launched_in(surroundings, [str(program), "600"], removed)
    assert recorded.executable_deleted
    with pytest.raises(Refused, match=str(program)):
        launched_in(recorded, [recorded.executable, "600"], as_seen)
    shutil.copy(SLEEP[0], program)
    again = launched_in(recorded, [recorded.executable, "600"], as_seen)
    assert again == replace(recorded, executable_deleted=False)


# Under systemd.

SYSTEMD_RUN = """#!/bin/sh
id -u > {seen}
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@needs_root
def test_its_scope_is_made_by_root_before_it_becomes_another_user(
    as_nobody, open_directory, monkeypatch
):
    """Nobody may ask the system's manager for one."""
    program, seen = open_directory / "systemd-run", open_directory / "seen"
    program.write_text(SYSTEMD_RUN.format(seen=seen))
    program.chmod(0o755)
    monkeypatch.setattr(_launch, "_SYSTEM_MANAGER", "/")
    monkeypatch.setenv("PATH", f"{open_directory}:{os.environ['PATH']}")
    assert launched_in(as_nobody, SLEEP, as_seen) == as_nobody
    assert seen.read_text() == "0\n"


# Not as it was, so not at all.


def test_what_cannot_be_is_refused_before_anything_starts(surroundings, monkeypatch):
    async def started(*_words, **_options):
        raise AssertionError("it was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    with pytest.raises(Refused, match="/nonexistent"):
        asyncio.run(launch(SLEEP, replace(surroundings, cwd="/nonexistent")))


DROPPED_RIGHTS = """
import asyncio, json, sys
from {launch} import launch
from {surroundings} import Surroundings

async def start():
    surroundings = Surroundings.from_dict(json.loads(sys.argv[1]))
    launched = await launch(["/bin/sh", "-c", "id > {trace}"], surroundings)
    while launched.exit_status() is None:
        await asyncio.sleep(0.002)
    print(launched.describe_end())
    await launched.let_go()

asyncio.run(start())
"""


@needs_root
@pytest.mark.parametrize("right", ["setuid", "setgid"])
def test_a_root_that_may_not_become_its_user_does_not_run_it(as_nobody, tmp_path, right):
    """As in a container."""
    script = DROPPED_RIGHTS.format(
        launch=launch.__module__, surroundings=Surroundings.__module__, trace=tmp_path / "trace"
    )
    without = ["setpriv", "--bounding-set", f"-{right}", "--inh-caps", f"-{right}"]
    done = subprocess.run(
        [*without, sys.executable, "-c", script, json.dumps(as_nobody.as_dict())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "exited 126 and said: cannot become user 65534 with group 1000: Operation not" in (
        done.stdout
    )
    assert not (tmp_path / "trace").exists()


def test_a_change_of_user_that_only_seems_to_work_is_noticed(tmp_path):
    """Some sandboxes let such system calls succeed without effect."""
    pretended = "import os\nos.setgroups = os.setresgid = os.setresuid = lambda *_ids: None\n"
    given = stage_input(
        ["/bin/sh", "-c", f"id > {tmp_path}/trace"],
        cwd="/",
        environment={},
        umask=0,
        limits={},
        credentials=(os.geteuid() + 1, os.getegid(), ()),
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", pretended + STAGE, "9"],
        input=given,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        126,
        b"cannot become user %d with group %d: nothing happened" % (os.geteuid() + 1, os.getegid()),
    )
    assert not (tmp_path / "trace").exists()


@needs_root
def test_a_directory_that_is_closed_to_its_user_is_told(as_nobody, tmp_path):
    tmp_path.chmod(0o700)
    status, said = says(replace(as_nobody, cwd=str(tmp_path)), "id")
    assert (status, said) == (126, f"cannot enter the directory {tmp_path}: Permission denied")


@needs_root
def test_a_program_that_its_user_may_not_run_is_told(as_nobody, open_directory):
    program = open_directory / "qemu"
    shutil.copy(SLEEP[0], program)
    program.chmod(0o700)
    status, said = launched_in(as_nobody, [str(program)], how_it_ended)
    assert (status, said) == (126, f"cannot run {program}: Permission denied")


def test_a_limit_that_the_kernel_refuses_is_told(tmp_path):
    given = stage_input(
        ["/bin/sh", "-c", f"id > {tmp_path}/trace"],
        cwd="/",
        environment={},
        umask=0,
        limits={"RLIMIT_NOFILE": (None, None)},  # above the kernel's own, fs.nr_open
        credentials=None,
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", STAGE, "9"], input=given, capture_output=True, check=False
    )
    assert done.returncode == 126
    assert done.stderr.startswith(b"cannot set RLIMIT_NOFILE to [None, None]: ")
    assert not (tmp_path / "trace").exists()


def test_what_could_not_be_given_back_is_noted(surroundings, monkeypatch):
    no_dumps = {**_setting.own_facts().limits, "RLIMIT_CORE": (0, 0)}
    own = replace(_setting.own_facts(), limits=no_dumps, raises_limits=False)
    monkeypatch.setattr(_setting, "own_facts", lambda: own)
    recorded = replace(surroundings, limits={"RLIMIT_CORE": (None, None)})

    async def notes(launched):
        return launched.notes

    assert launched_in(recorded, SLEEP, notes) == (
        "Its RLIMIT_CORE was unlimited, and this run can have at most 0.",
    )
