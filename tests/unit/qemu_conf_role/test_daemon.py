# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process the daemon is, whether it is a new one, and whether it has read the file."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

REPORT = {
    "answers": True,
    "busy": [],
    "error": None,
    "identity": "8:900",
    "older_than_file": False,
    "pid": 8,
    "unit": None,
}


@pytest.fixture
def daemon(program):
    return program("daemon")


@pytest.mark.parametrize(
    ("listener", "unit", "main_pid", "process"),
    [
        pytest.param(700, None, 0, (700, None), id="an unknown socket, no systemd"),
        pytest.param(700, "libvirtd.service", 0, (700, None), id="started by hand"),
        pytest.param(700, "libvirtd.service", 700, (700, "libvirtd.service"), id="a service"),
        pytest.param(700, "libvirtd.service", 800, (700, None), id="beside the service"),
        pytest.param(1, "virtqemud.service", 800, (800, "virtqemud.service"), id="socket unit"),
        pytest.param(1, "virtqemud.service", 0, (0, None), id="socket unit of another service"),
        pytest.param(1, None, 0, (0, None), id="socket unit of an unknown name"),
    ],
)
def test_the_process_behind_a_socket(daemon, listener, unit, main_pid, process):
    assert daemon.process_of(listener, unit, main_pid) == process


@pytest.mark.parametrize(
    ("started", "written", "older"),
    [
        pytest.param(100.0, 99.0, False, id="started afterwards"),
        pytest.param(100.0, 100.5, True, id="written while it ran"),
        pytest.param(100.0, 100.0, False, id="at once"),
        pytest.param(100.0, 201.0, False, id="a time to come says nothing"),
    ],
)
def test_a_daemon_cannot_have_read_what_was_written_while_it_ran(daemon, started, written, older):
    assert daemon.is_older(started, written, now=200.0) == older


def test_the_start_is_counted_from_the_boot_whatever_the_name_of_the_process(daemon):
    stat = "8 (a) 1 (b) S " + " ".join(["0"] * 18) + " 250 0 0"
    assert daemon.started_at(stat, ticks_per_second=100, since_boot=10.0, now=1000.0) == 992.5


def test_the_start_of_a_process_of_this_moment(daemon):
    with subprocess.Popen(["sleep", "60"]) as process:
        started = daemon.started_at(
            Path(f"/proc/{process.pid}/stat").read_text(),
            os.sysconf("SC_CLK_TCK"),
            time.clock_gettime(time.CLOCK_BOOTTIME),
            now := time.time(),
        )
        process.kill()
    assert now - 5 < started <= now


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        pytest.param({}, "7:100", True, id="another process"),
        pytest.param({}, "8:900", False, id="the same"),
        pytest.param({}, "8:100", True, id="another with the old one's number"),
        pytest.param({"answers": False}, "7:100", False, id="no answer"),
        pytest.param({"identity": None}, "7:100", False, id="nobody knows who"),
        pytest.param({}, "", True, id="there was none"),
        pytest.param({"older_than_file": True}, "", False, id="it came up with the old file"),
        pytest.param({"older_than_file": True}, "7:100", False, id="started before the file"),
    ],
)
def test_a_restart_is_proved_by_an_answer_of_another_process(daemon, changes, old, new):
    assert daemon.is_new({**REPORT, **changes}, old) == new


@pytest.mark.parametrize(
    ("busy", "restarting", "older", "free"),
    [
        ([], True, True, True),
        (["web"], True, False, False),
        (["web"], False, True, False),
        (["web"], False, False, True),
    ],
)
def test_a_job_is_waited_for_only_when_a_restart_would_cut_it_off(
    daemon, busy, restarting, older, free
):
    assert daemon.is_free({**REPORT, "busy": busy, "older_than_file": older}, restarting) == free


def test_the_kernel_names_who_listens(daemon, tmp_path):
    path = str(tmp_path / "libvirt-sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        with open(tmp_path / "file", "w") as file, socket.socket(socket.AF_INET) as other:
            among = [file.fileno(), other.fileno(), 10**6, client.fileno()]
            assert daemon.peer_of(among) == (os.getpid(), path)
            assert daemon.peer_of(among[:3]) is None


@pytest.mark.parametrize(
    ("systemctl", "pid"),
    [("echo 812", 812), ("echo 0", 0), ("exit 1", 0), ("echo not booted >&2; exit 1", 0)],
)
def test_the_main_process_of_a_unit(daemon, tmp_path, monkeypatch, systemctl, pid):
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n{systemctl}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert daemon._main_pid("virtqemud.service") == pid


def test_there_is_no_unit_without_systemd(daemon, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert daemon._main_pid("virtqemud.service") == 0


def test_a_daemon_that_is_down_has_nothing_to_cut_off(daemon, fake_libvirt):
    fake_libvirt.refusal = "Failed to connect socket"
    report = daemon.report_of("qemu:///system", "/nonexistent")
    assert (report["answers"], report["busy"], report["older_than_file"]) == (False, [], False)
    assert report["error"] == "Failed to connect socket"
