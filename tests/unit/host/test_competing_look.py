# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at on a host, where systemd is not needed for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import (
    _competing_look,
    _competing_off,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import find
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_look import (
    auto_shutdown_of,
    libvirt_guests_service,
    process_names,
    seen_agents,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_off import (
    apply_disable,
    plan_disable,
    put_back,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    AutoShutdown,
    LibvirtGuests,
    SeenAgent,
    Starter,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _systemctl

SERVICE = Starter(
    "libvirt_guests", "libvirt-guests.service", "stops guests", (), True, True, "do it"
)


@pytest.fixture
def no_systemd(monkeypatch, tmp_path):
    """A host with another init, and nothing on it that this looks at."""
    monkeypatch.setattr(_systemctl, "_SYSTEM", str(tmp_path / "no-systemd"))
    names = ("LIST_FILE", "_SCHEDULED", "_PROXMOX_RESOURCES", "_PROXMOX_STATUS", "_GANETI_PAUSE")
    for name in names:
        monkeypatch.setattr(_competing_look, name, str(tmp_path / name))
    monkeypatch.setattr(_competing_look, "_CONFIGURATIONS", (str(tmp_path / "configuration"),))
    monkeypatch.setattr(_competing_look, "_LOCKS", (str(tmp_path / "lock"),))
    return tmp_path


@pytest.fixture
def processes(monkeypatch):
    def set_names(*names):
        monkeypatch.setattr(_competing_look, "process_names", lambda: frozenset(names))

    return set_names


@pytest.fixture
def cibadmin(monkeypatch, tmp_path):
    """A program of that name in the only directory that programs are looked for in."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def write(script):
        path = tmp_path / "bin" / "cibadmin"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


def agents():
    return asyncio.run(seen_agents(()))


# --- libvirt-guests under another init -------------------------------------------------------


def test_without_systemd_the_services_lock_file_says_that_it_is_active(no_systemd):
    assert asyncio.run(libvirt_guests_service()) is None
    (no_systemd / "lock").touch()
    (no_systemd / "configuration").write_text("ON_BOOT=ignore\n")
    (no_systemd / "LIST_FILE").write_text("default AB-C\n")
    assert asyncio.run(libvirt_guests_service()) == LibvirtGuests(
        "active", True, False, {"ON_BOOT": "ignore"}, frozenset({"ab-c"}), False
    )


def test_a_host_without_domains_is_not_asked_about_libvirt(no_systemd, processes):
    processes()
    (no_systemd / "lock").touch()
    (no_systemd / "qemu.conf").write_text('auto_shutdown_try_save = "persistent"\n')
    guest = HostGuest(
        "one", None, Source(qmp_socket="/run/q"), "running", os.getpid(), 1, None, None
    )
    assert asyncio.run(find(None, [guest], str(no_systemd / "qemu.conf"))) == ()


def test_a_domain_is_looked_at_with_all_that_libvirt_has(no_systemd, processes):
    processes("pacemakerd")
    (no_systemd / "lock").touch()
    (no_systemd / "_SCHEDULED").write_text("USEC=1732780000000000\nMODE=reboot\n")
    (no_systemd / "qemu.conf").write_text('auto_shutdown_try_save = "persistent"\n')
    source = Source(uri="qemu:///system", domain="web")
    guest = HostGuest(
        "web", None, source, "running", None, 1, None, None, autostart=True, persistent=True
    )
    found = asyncio.run(find("qemu:///system", [guest], str(no_systemd / "qemu.conf")))
    assert [(one.kind, one.blocks) for one in found] == [
        ("libvirt_guests", True),
        ("ha_agent", True),
        ("libvirt_autostart", False),
        ("auto_shutdown", False),
        ("host_shutdown", False),
    ]


# --- qemu.conf -------------------------------------------------------------------------------


def test_only_what_is_set_for_the_hosts_shutdown_is_taken_from_qemu_conf(tmp_path):
    path = tmp_path / "qemu.conf"
    path.write_text('user = "root"\nauto_shutdown_poweroff = "all"\nauto_shutdown_restore = 0\n')
    assert auto_shutdown_of(str(path)) == AutoShutdown(
        str(path), {"auto_shutdown_poweroff": "all", "auto_shutdown_restore": 0}
    )


def test_a_qemu_conf_that_is_not_there_sets_nothing(tmp_path):
    assert auto_shutdown_of(str(tmp_path / "none")) == AutoShutdown(str(tmp_path / "none"), {})


def test_a_qemu_conf_that_libvirt_would_not_parse_is_told_with_its_line(tmp_path):
    path = tmp_path / "qemu.conf"
    path.write_text("user root\n")
    assert auto_shutdown_of(str(path)).unread == f"{path}:1: = was expected after user"


# --- agents ----------------------------------------------------------------------------------


def test_the_processes_of_this_host_are_seen():
    assert Path("/proc/self/comm").read_text().rstrip("\n") in process_names()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("echo '<cib/>'", (False, None), id="told"),
        pytest.param("echo '<cib/>'; exit 102", (None, None), id="failed"),
        pytest.param("exec /bin/sleep 60", (None, None), id="hangs"),
        pytest.param(None, (None, None), id="not installed"),
    ],
)
def test_pacemaker_is_asked_through_cibadmin(processes, cibadmin, monkeypatch, script, expected):
    processes("pacemakerd")
    monkeypatch.setattr(_competing_look, "_CIB_SECONDS", 0.3 if "sleep" in str(script) else 15.0)
    if script is not None:
        cibadmin(script)
    assert agents() == (SeenAgent("Pacemaker", *expected),)


def test_proxmox_and_ganeti_are_read_from_their_files(no_systemd, processes):
    processes("pve-ha-lrm", "ganeti-noded")
    assert agents() == (
        SeenAgent("Proxmox VE HA", False, None),
        SeenAgent("Ganeti", True, None),
    )
    (no_systemd / "_PROXMOX_RESOURCES").write_text("vm: 100\n\tstate started\n")
    (no_systemd / "_PROXMOX_STATUS").write_text('{"mode": "maintenance"}')
    (no_systemd / "_GANETI_PAUSE").write_text("99999999999\n")
    assert [one.calm for one in agents()] == [
        "this node is in maintenance mode",
        "its watcher is paused",
    ]


def test_a_list_of_resources_that_cannot_be_read_is_not_taken_for_an_empty_one(
    no_systemd, processes
):
    processes("pve-ha-lrm")
    (no_systemd / "_PROXMOX_RESOURCES").mkdir()
    assert agents() == (SeenAgent("Proxmox VE HA", None, None),)


def test_an_agent_with_nothing_to_read_is_only_named(processes):
    processes("nova-compute")
    assert agents() == (SeenAgent("OpenStack Nova", None, None),)


# --- switching off ---------------------------------------------------------------------------


def test_what_cannot_be_switched_off_gets_no_record():
    with pytest.raises(AssertionError, match="Pacemaker"):
        plan_disable(Starter("ha_agent", "Pacemaker", "", (), True, False, ""))


@pytest.mark.parametrize(
    ("kind", "unit", "line"),
    [
        ("libvirt_guests", "libvirt-guests.service", "[Service]\nExecStop=\n"),
        (
            "unit_start",
            "guest@one.service",
            "[Unit]\nConditionPathExists=/run/systemd/system/guest@one.service.d/"
            "zz-vmfleet-suspend.conf\n",
        ),
    ],
)
def test_a_record_says_all_that_is_written(kind, unit, line):
    record = plan_disable(Starter(kind, unit, "", (), True, True, ""))
    assert record == {
        "kind": kind,
        "unit": unit,
        "path": f"/etc/systemd/system/{unit}.d/zz-vmfleet-host.conf",
        "text": record["text"],
    }
    assert record["text"].endswith(line)
    assert "remove this file and run `systemctl daemon-reload`" in record["text"]


@pytest.mark.parametrize("failing", ["fsync", "replace", "makedirs"])
def test_a_file_that_cannot_be_written_durably_is_an_error_and_can_be_tidied_up(
    no_systemd, monkeypatch, failing
):
    monkeypatch.setattr(_competing_off, "_DIRECTORY", str(no_systemd))
    record = plan_disable(SERVICE)

    def fail(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(StoreError, match="cannot be written: No space left"):
            asyncio.run(apply_disable(record))
    assert not os.path.exists(record["path"])
    assert asyncio.run(put_back(record)) == []
    assert not os.path.exists(os.path.dirname(record["path"]))
