# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that brings its guests back by itself: the role's unit under a real systemd."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.tests.support.competing_host import (
    competing_host,
    reboot,
)
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host

UNIT = "vmfleet-resume.service"
BUILD = Path(__file__).resolve().parents[2] / "roles" / "vm_resume" / "files" / "build_program.py"
MODULE_UTILS = Path(__file__).resolve().parents[2] / "plugins" / "module_utils"
# What a unit depends on by default; systemd's own units are not in there.
TARGETS = ("sysinit.target", "basic.target", "shutdown.target", "multi-user.target")


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    for host in competing_host(tmp_path, monkeypatch):
        for target in TARGETS:
            host.write_unit(target, "[Unit]\nDefaultDependencies=no\n")
        host.write_unit(
            "default.target", "[Unit]\nDefaultDependencies=no\nWants=multi-user.target\n"
        )
        yield host


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def places(host, tmp_path):
    """Variables of the role: where a test may write."""
    return {
        "vm_resume_python": sys.executable,
        "vm_resume_program": str(tmp_path / "lib exec" / "vmfleet%suspend"),
        "vm_resume_options_file": str(tmp_path / "etc" / "resume.json"),
        "vm_resume_store": str(host.store),
        "vm_resume_journal": str(host.journal),
        "vm_resume_options": {"max_concurrent": 2},
    }


@pytest.fixture
def role(systemd, places, tmp_path):
    """Applies the role in the host; gives how much ansible-playbook counted as changed."""

    def apply(*words, **variables):
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable, **places, **variables},
            "roles": ["vmfleet.suspend.vm_resume"],
        }
        (tmp_path / "play.json").write_text(json.dumps([play]))
        printed = systemd.run(said, "ansible-playbook", *words, str(tmp_path / "play.json"))
        (recap,) = (line for line in printed.splitlines() if line.startswith("localhost "))
        counted = dict(word.split("=") for word in recap.partition(":")[2].split())
        assert (counted["failed"], counted["unreachable"]) == ("0", "0"), printed
        return int(counted["changed"])

    return apply


async def said(*words):
    """What a program prints in there; Ansible may write where the test may."""
    own = {"NOCOLOR": "1", "HOME": "/run/ansible", "REMOTE_TMP": "/run/ansible/tmp"}
    environment = {**os.environ, **{f"ANSIBLE_{name}": value for name, value in own.items()}}
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _none = await process.communicate()
    return output.decode()


async def suspended(host, sockets, hold_until=None):
    params = host.suspend_params(qmp_sockets=sockets, hold_until=hold_until)
    return (await suspend(suspend_request(params), check_mode=False)).as_result()["journal"]


async def exists(path):
    return os.path.exists(path)


async def run_guest(argv):
    """As somebody who then logs out."""
    process = await asyncio.create_subprocess_exec(
        "systemd-run", "--scope", "--quiet", "--collect", "--", *argv, start_new_session=True
    )
    del process


def started(systemd, guest):
    systemd.run(run_guest, guest.argv())
    guest.wait_served()
    guest.wait_passes(1)


def wait_until(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def text_of(path):
    return path.read_text() if path.exists() else ""


def in_an_hour():
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    return later.isoformat()


def program(places, *words):
    command = [places["vm_resume_python"], "-I", places["vm_resume_program"]]
    return [*command, "--options", places["vm_resume_options_file"], *words]


@pytest.mark.full
def test_the_role_installs_once_and_takes_all_of_it_away_again(systemd, role, places):
    assert role("--check", "--diff") > 0
    assert not systemd.run(exists, places["vm_resume_program"])
    assert role() > 0
    assert role() == 0
    assert systemd.systemctl("is-enabled", UNIT) == "enabled"
    assert role(vm_resume_at_boot=False) > 0
    assert role(vm_resume_at_boot=False) == 0
    assert systemd.systemctl("is-enabled", UNIT, check=False) in ("", "not-found")


def test_a_host_brings_its_guests_back_when_it_boots_and_not_while_they_are_held(
    systemd, role, places, host, tiny_guest, tmp_path
):
    guests = [tiny_guest(32, 4, 4, name=name) for name in ("web01", "db01")]
    sockets = [guest.qmp_socket for guest in guests]
    for guest in guests:
        started(systemd, guest)
    role()
    verified = systemd.run(said, "systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}")
    assert "vmfleet" not in verified  # of others' units it may complain
    mounts = set(systemd.show(UNIT, "RequiresMountsFor").split())
    assert mounts == {str(host.store), str(host.journal)}
    after = systemd.show(UNIT, "After").split()
    assert {"network-online.target", "libvirtd.service", "virtqemud.socket"} <= set(after)
    printed = tmp_path / "printed"  # there is no journald
    systemd.write_unit(f"{UNIT}.d/log.conf", f"[Service]\nStandardOutput=append:{printed}\n")

    systemd.run(suspended, host, sockets, in_an_hour())
    reboot(systemd)
    wait_until(lambda: "is held until" in text_of(printed), "the unit does not say that it waits")
    assert systemd.show(UNIT, "ActiveState") == "active"
    assert not any(guest.alive() for guest in guests)
    assert "verified   web01 " in systemd.run(said, *program(places, "status"))

    systemd.systemctl("stop", UNIT)
    assert systemd.show(UNIT, "Result") == "success"
    systemd.systemctl("start", UNIT)
    systemd.run(said, *program(places, "release"))
    wait_until(lambda: systemd.show(UNIT, "ActiveState") == "inactive", "the unit does not end")
    assert systemd.show(UNIT, "Result") == "success"
    for guest in guests:
        guest.wait_passes(2)
        assert guest.mismatches == []

    systemd.run(suspended, host, sockets)
    reboot(systemd)
    wait_until(lambda: systemd.show(UNIT, "ActiveState") == "inactive", "the unit does not end")
    pids = [guest.pid for guest in guests]
    systemd.systemctl("start", UNIT)  # once more: guests that run are left alone
    wait_until(lambda: systemd.show(UNIT, "ActiveState") == "inactive", "the unit does not end")
    assert [guest.pid for guest in guests] == pids
    for guest in guests:
        guest.wait_passes(2)
        assert guest.mismatches == []
    assert "No suspend into " in systemd.run(said, *program(places, "status"))


def test_the_program_has_the_same_bytes_whoever_makes_it(tmp_path):
    made = []
    for name in ("one", "other"):
        subprocess.run([sys.executable, BUILD, MODULE_UTILS, tmp_path / name], check=True)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    ran = subprocess.run(
        [sys.executable, "-I", tmp_path / "one", "version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith("1.")
