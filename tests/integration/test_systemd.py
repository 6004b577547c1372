# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that a real systemd runs: what the guard is for, stopping, starting to load, settling."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    DeadlineExceeded,
    Refused,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._deadline import Deadline
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import LaunchFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemctl import properties
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd import (
    begin_stop,
    finish_stop,
    settle,
    start_with,
    stop,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_drop_in import (
    drop_in_path,
    write_drop_in,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_guest import (
    unit_of_process,
    unit_to_stop,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_unit import Unit
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._run import restore
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._run import save
from ansible_collections.vmfleet.suspend.tests.support.systemd_host import (
    SYSTEMD,
)

GUEST = Unit("guest.service")
NOBODY = 65534
AS_BEFORE = ("Restart", "Type", "ExecStart", "DropInPaths", "TimeoutStartUSec", "PIDFile")


@pytest.fixture
def host(systemd_host):
    return systemd_host


@pytest.fixture
def guest(tiny_guest):
    return tiny_guest(32, 4, 4)


def unit_text(argv, *lines):
    service = ["Restart=always", "RestartSec=0.1", *lines, f"ExecStart={shlex.join(argv)}"]
    # Of the units that a service depends on by default there is none in here.
    return "\n".join(["[Unit]", "DefaultDependencies=no", "[Service]", *service, ""])


def install(host, name, argv, *lines):
    host.write_unit(name, unit_text([f"/usr/bin/{argv[0]}", *argv[1:]], *lines))
    host.systemctl("daemon-reload")


def script(tmp_path, guest, rest):
    path = tmp_path / "script"
    path.write_text(f"{shlex.join(guest.argv())} {rest}\n")
    return ["sh", str(path)]


def start_fresh(host, guest, *lines):
    install(host, GUEST.name, guest.argv(), *lines)
    host.systemctl("start", GUEST.name)
    wait_ready(guest)
    return host.pid_inside(guest.pid)


def settings(host, unit=GUEST.name):
    shown = {name: host.show(unit, name) for name in AS_BEFORE}
    # Then it says of each word when it last ran.
    return {**shown, "ExecStart": shown["ExecStart"].partition(" ; start_time=")[0]}


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_monitor(guest):
    with socket.socket(socket.AF_UNIX) as probe:
        wait_until(lambda: probe.connect_ex(guest.qmp_socket) == 0)


def wait_for_status(guest, status):
    wait_for_monitor(guest)
    assert guest.status() == status


def wait_ready(guest):
    wait_for_monitor(guest)  # whatever systemd runs before QEMU is not the guest
    guest.wait_ready()


async def membership(pid):
    return unit_of_process(pid)


async def start_and_let_go(unit, argv):
    qemu = await start_with(unit, argv, Deadline(30))
    await qemu.let_go()
    return qemu.pid


async def start_and_end(unit, argv):
    qemu = await start_with(unit, argv, Deadline(30))
    await qemu.end()
    await qemu.let_go()


async def status_of(unit, argv):
    qemu = await start_with(unit, argv, Deadline(30))
    try:
        while qemu.exit_status() is None:
            await asyncio.sleep(0.05)
        return qemu.exit_status(), qemu.describe_end()
    finally:
        await qemu.end()
        await qemu.let_go()


async def start_before(unit, argv, seconds):
    await start_with(unit, argv, Deadline(seconds))


async def leave_drop_in(unit, argv):
    write_drop_in(unit, argv)


async def exists(path):
    return os.path.exists(path)


def test_without_the_guard_systemd_starts_a_fresh_guest_on_the_disks_of_the_saved_one(host, guest):
    first = start_fresh(host, guest)
    guest.execute("quit")
    wait_until(lambda: host.show(GUEST.name, "MainPID") not in (str(first), "0"))
    wait_for_status(guest, "running")
    assert host.show(GUEST.name, "NRestarts") == "1"


def test_a_guest_that_systemd_would_start_again_is_refused_unless_its_unit_is_named(host, guest):
    pid = start_fresh(host, guest)
    assert host.run(membership, pid).unit == GUEST
    with pytest.raises(Refused, match=r"Restart=always.*systemd_unit=guest\.service"):
        host.run(unit_to_stop, pid, None)
    assert host.run(unit_to_stop, pid, "guest") == GUEST


def test_an_alias_names_the_unit_too_and_another_unit_does_not(host, guest):
    (host.units / "alias.service").symlink_to(GUEST.name)
    install(host, "other.service", ["sleep", "600"])
    pid = start_fresh(host, guest)
    assert host.run(unit_to_stop, pid, "alias") == GUEST
    with pytest.raises(Refused, match=r"under the systemd unit guest\.service, not under .*other"):
        host.run(unit_to_stop, pid, "other.service")


def test_a_guest_whose_unit_is_not_restarted_just_quits(host, guest):
    pid = start_fresh(host, guest, "Restart=no")
    assert host.run(unit_to_stop, pid, None) is None


def test_a_guest_that_daemonized_from_another_service_does_not_end_it(host, guest, tmp_path):
    install(host, "cron.service", script(tmp_path, guest, "-daemonize; sleep 600"))
    host.systemctl("start", "cron.service")
    wait_ready(guest)
    pid = host.pid_inside(guest.pid)
    assert host.run(membership, pid).unit == Unit("cron.service")
    assert host.run(unit_to_stop, pid, None) is None
    with pytest.raises(Refused, match=r"does not run as the systemd unit cron\.service"):
        host.run(unit_to_stop, pid, "cron")


def test_a_guest_of_a_wrapper_script_ends_its_service(host, guest, tmp_path):
    install(host, GUEST.name, script(tmp_path, guest, "; true"))
    host.systemctl("start", GUEST.name)
    wait_ready(guest)
    pid = host.pid_inside(guest.pid)
    assert host.show(GUEST.name, "MainPID") != str(pid)
    with pytest.raises(Refused, match="Restart=always"):
        host.run(unit_to_stop, pid, None)


def test_a_guest_in_a_scope_is_nobodys(host, guest):
    install(
        host, "login.service", ["systemd-run", "--scope", "--quiet", "--collect", *guest.argv()]
    )
    host.systemctl("start", "login.service")
    wait_ready(guest)
    pid = host.pid_inside(guest.pid)
    assert host.run(membership, pid) is None
    assert host.run(unit_to_stop, pid, None) is None


def test_a_unit_that_is_stopped_stays_ended(host, guest):
    start_fresh(host, guest)
    host.run(stop, GUEST)
    assert not guest.alive()
    time.sleep(1)  # ten times as long as RestartSec=
    assert not guest.alive()
    assert host.show(GUEST.name, "ActiveState") == "inactive"
    host.run(stop, GUEST)  # once more: nothing


def test_a_stop_command_that_waits_for_the_guest_ends_when_qemu_is_told_to_quit(host, guest):
    start_fresh(host, guest, "ExecStop=/bin/sh -c 'while kill -0 $MAINPID; do sleep 0.1; done'")
    host.run(begin_stop, GUEST)
    assert guest.alive()
    guest.execute("quit")
    host.run(finish_stop, GUEST)
    time.sleep(1)
    assert not guest.alive()


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("ExecStartPost=/bin/sleep 0.5", "ExecStartPre=/bin/true", "TimeoutStartSec=20"),
        ("Type=oneshot", "Restart=no", "RemainAfterExit=yes"),
    ],
    ids=["simple", "with commands around it", "oneshot"],
)
def test_a_restored_guest_is_its_units_main_process_and_the_unit_as_before(host, guest, lines):
    install(host, GUEST.name, guest.argv(), *lines)
    before = settings(host)
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    assert pid == host.pid_inside(guest.pid)
    wait_for_status(guest, "inmigrate")
    assert host.show(GUEST.name, "Restart") == "no"

    host.run(settle, GUEST, pid)
    assert settings(host) == before
    assert host.show(GUEST.name, "MainPID") == str(pid)
    assert host.show(GUEST.name, "ActiveState") == "active"
    assert host.show(GUEST.name, "NeedDaemonReload") == "no"
    assert not host.run(exists, os.path.dirname(drop_in_path(GUEST)))
    assert guest.status() == "inmigrate"

    host.systemctl("stop", GUEST.name)
    assert not guest.alive()
    assert host.show(GUEST.name, "ActiveState") == "inactive"


def test_a_unit_that_forked_with_a_pid_file_takes_the_restored_guest(host, guest):
    pid_file = guest.directory / "pid"
    lines = ("Type=forking", f"PIDFile={pid_file}")
    install(host, GUEST.name, [*guest.argv(), "-daemonize", "-pidfile", str(pid_file)], *lines)
    host.systemctl("start", GUEST.name)
    host.run(stop, GUEST)
    before = settings(host)
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    host.run(settle, GUEST, pid)
    assert settings(host) == before
    assert host.show(GUEST.name, "MainPID") == str(pid) == str(host.pid_inside(guest.pid))
    assert host.run(unit_to_stop, pid, "guest") == GUEST
    host.run(stop, GUEST)
    assert not guest.alive()


def test_a_restored_guest_that_ends_is_started_again_as_the_unit_says(host, guest):
    install(host, GUEST.name, guest.argv())
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    host.run(settle, GUEST, pid)
    wait_for_status(guest, "inmigrate")
    guest.execute("quit")
    wait_until(lambda: host.show(GUEST.name, "MainPID") not in (str(pid), "0"))
    wait_for_status(guest, "running")


@pytest.mark.full
def test_a_start_command_that_waits_for_the_guest_does_not_hold_up_the_load(host, guest, tmp_path):
    loaded = tmp_path / "loaded"
    waits = f"ExecStartPost=/bin/sh -c 'until [ -e {loaded} ]; do sleep 0.1; done'"
    install(host, GUEST.name, guest.argv(), waits, "TimeoutStartSec=1")
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    time.sleep(2)  # longer than the unit's own TimeoutStartSec=
    assert host.show(GUEST.name, "SubState") == "start-post"
    loaded.touch()
    host.run(settle, GUEST, pid)
    assert host.show(GUEST.name, "MainPID") == str(pid)
    time.sleep(2)
    assert host.show(GUEST.name, "SubState") == "running"


def test_a_guest_that_is_not_loaded_is_ended_and_the_unit_as_before(host, guest):
    install(host, GUEST.name, guest.argv(), "ExecStop=/bin/sleep 600")
    before = settings(host)
    host.run(start_and_end, GUEST, guest.argv(incoming=True))
    time.sleep(1)
    assert not guest.alive()
    assert settings(host) == before
    assert not host.run(exists, drop_in_path(GUEST))


def test_a_command_line_arrives_word_for_word(host, tmp_path):
    words = ["a b", "x\ny", "%h", "$HOME", "${X}", 'q"r', "b\\s", "", ";", "'", "\t", "é", "\x01"]
    words += ["#x", "-a", "@x", "100%", "$$", "\\x41", "trailing\\"]
    (tmp_path / "program").write_text('#!/bin/sh\nprintf "%s\\0" "$@" >"$0.said"\nexec sleep 600\n')
    (tmp_path / "program").chmod(0o755)
    install(host, GUEST.name, ["sleep", "600"])
    host.run(start_and_let_go, GUEST, [str(tmp_path / "program"), *words])
    told = tmp_path / "program.said"
    wait_until(lambda: told.exists() and told.read_text().count("\0") == len(words))
    assert told.read_text().split("\0")[:-1] == words


def test_the_operators_own_override_does_not_win_over_the_restores_command_line(host, guest):
    install(host, GUEST.name, guest.argv())
    override = "[Service]\nRestart=on-failure\nExecStart=\nExecStart=/bin/sleep 601\n"
    host.write_unit("guest.service.d/override.conf", override)
    host.systemctl("daemon-reload")
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    assert pid == host.pid_inside(guest.pid)
    host.run(settle, GUEST, pid)
    assert host.show(GUEST.name, "Restart") == "on-failure"


def test_a_drop_in_file_that_comes_later_is_refused_before_anything_starts(host, guest):
    install(host, GUEST.name, guest.argv())
    host.write_unit("guest.service.d/zzz.conf", "[Service]\nExecStart=\nExecStart=/bin/sleep 601\n")
    with pytest.raises(Refused, match=r"zzz\.conf"):
        host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    assert host.show(GUEST.name, "ActiveState") == "inactive"
    assert not host.run(exists, drop_in_path(GUEST))


def test_a_qemu_that_does_not_start_leaves_the_unit_as_before(host, guest):
    install(host, GUEST.name, guest.argv(), "WorkingDirectory=/nonexistent")
    before = settings(host)
    with pytest.raises(LaunchFailed, match="exit-code, exit status 200"):
        host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    assert settings(host) == before
    assert not host.run(exists, drop_in_path(GUEST))


@pytest.mark.parametrize(
    ("end", "status", "told"), [("exit 7", 7, "exited 7"), ("kill -9 $$", -9, "killed by signal 9")]
)
def test_a_qemu_that_ends_early_tells_how_and_is_not_started_again(host, guest, end, status, told):
    install(host, GUEST.name, guest.argv())
    found, words = host.run(status_of, GUEST, ["/bin/sh", "-c", f"sleep 0.3; {end}"])
    assert found == status
    assert f"{told} under the systemd unit guest.service" in words
    assert host.show(GUEST.name, "NRestarts") == "0"
    assert host.show(GUEST.name, "Restart") == "always"


def test_a_start_that_outlasts_the_timeout_is_taken_back(host, guest):
    install(host, GUEST.name, guest.argv(), "ExecStartPre=/bin/sleep 600")
    with pytest.raises(DeadlineExceeded):
        host.run(start_before, GUEST, guest.argv(incoming=True), 1.0)
    assert host.show(GUEST.name, "ActiveState") in ("inactive", "failed")
    assert not host.run(exists, drop_in_path(GUEST))


def test_a_unit_that_runs_or_is_not_there_is_not_started(host, guest):
    start_fresh(host, guest)
    with pytest.raises(Refused, match=r"runs already .*systemctl stop guest\.service"):
        host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    with pytest.raises(Refused, match="not-found"):
        host.run(start_and_let_go, Unit("none.service"), guest.argv(incoming=True))
    assert guest.status() == "running"


def test_what_a_killed_restore_left_is_replaced_by_the_next_and_removed_by_a_stop(host, guest):
    install(host, GUEST.name, guest.argv())
    host.run(leave_drop_in, GUEST, ["/bin/sleep", "602"])
    host.systemctl("daemon-reload")
    pid = host.run(start_and_let_go, GUEST, guest.argv(incoming=True))
    assert pid == host.pid_inside(guest.pid)
    # This run is killed too: the unit's own Restart= is hidden, so it is not believed.
    assert host.run(properties, GUEST)["Restart"] == "no"
    with pytest.raises(Refused, match="cannot be learned"):
        host.run(unit_to_stop, pid, None)
    host.run(stop, GUEST)
    assert host.show(GUEST.name, "Restart") == "always"
    assert not guest.alive()


def test_the_unit_of_a_users_own_systemd_is_started_and_settled_by_that_user(host):
    runtime = f"/run/user/{NOBODY}"
    manager = f"""\
[Unit]
DefaultDependencies=no
[Service]
Type=notify
Delegate=yes
User={NOBODY}
Group={NOBODY}
Environment=XDG_RUNTIME_DIR={runtime}
Environment=SYSTEMD_UNIT_PATH={runtime}/systemd/user:/run/units
ExecStartPre=+/usr/bin/cp -r {host.units} /run/units
ExecStartPre=+/usr/bin/install -d -o {NOBODY} -m 700 {runtime}
ExecStart={SYSTEMD} --user
"""
    host.write_unit("own.service", unit_text(["/bin/sleep", "600"]))
    host.write_unit(f"user@{NOBODY}.service", manager)
    host.systemctl("daemon-reload")
    host.systemctl("start", f"user@{NOBODY}.service")
    own = Unit("own.service", NOBODY)
    pid = host.run(start_and_let_go, own, ["/bin/sleep", "603"], user_id=NOBODY)
    assert host.run(membership, pid).unit == own
    host.run(settle, own, pid, user_id=NOBODY)
    assert host.run(unit_to_stop, pid, "own", user_id=NOBODY) == own
    with pytest.raises(Refused, match=rf"Restart=always.*by the user {NOBODY}"):
        host.run(unit_to_stop, pid, None)  # root asks the user's systemd
    host.run(stop, own, user_id=NOBODY)


# Through the use cases.


async def do(work, request, check_mode):
    return (await work(request, check_mode=check_mode)).as_result()


def saving(guest, path, **options):
    return SaveRequest(str(path), guest.qmp_socket, qemu_conf="/nonexistent", **options)


def test_a_guest_that_systemd_would_start_again_is_saved_only_by_the_name_of_its_unit(
    host, guest, store
):
    start_fresh(host, guest)
    path = store / "guest.save"
    for check_mode in (True, False):
        with pytest.raises(Refused, match="has Restart=always"):
            host.run(do, save, saving(guest, path), check_mode)
    assert guest.status() == "running"
    assert not path.exists()
    named = saving(guest, path, systemd_unit="guest")
    foretold = host.run(do, save, named, True)
    done = host.run(do, save, named, False)
    assert done["plan"]["systemd_unit"] == foretold["plan"]["systemd_unit"] == GUEST.name
    assert "stopped the systemd unit guest.service" in done["actions"]
    time.sleep(0.5)  # RestartSec= and more
    assert host.show(GUEST.name, "ActiveState") == "inactive"
    assert not guest.alive()


def test_it_comes_back_as_its_unit_which_is_as_before(host, guest, store):
    start_fresh(host, guest)
    before = settings(host)
    path = store / "guest.save"
    host.run(do, save, saving(guest, path, systemd_unit=GUEST.name), False)
    done = host.run(do, restore, RestoreRequest(str(path)), False)
    assert f"gave the systemd unit {GUEST.name} its own settings back" in done["actions"]
    assert host.show(GUEST.name, "MainPID") == str(done["guest"]["pid"])
    assert settings(host) == before
    guest.wait_passes(2)
    assert guest.mismatches == []
    assert host.run(do, restore, RestoreRequest(str(path)), False)["changed"] is False


def test_a_restore_through_a_unit_that_fails_leaves_the_unit_ended_and_as_before(
    host, guest, store
):
    start_fresh(host, guest)
    before = settings(host)
    path = store / "guest.save"
    host.run(do, save, saving(guest, path, systemd_unit=GUEST.name), False)
    argv = [f"/usr/bin/{guest.argv()[0]}", *guest.argv()[1:]]
    argv[argv.index("-machine") + 1] = "pc,hpet=off"
    with pytest.raises(RestoreFailed, match="journalctl"):
        host.run(do, restore, RestoreRequest(str(path), argv=tuple(argv)), False)
    assert settings(host) == before
    assert not guest.alive()
    host.run(do, restore, RestoreRequest(str(path)), False)
    guest.wait_passes(1)
