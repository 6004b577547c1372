# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt-guests under a real systemd: seen, switched off over a reboot, and on again as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _competing_off
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_off import (
    apply_disable,
    hold_path,
    plan_disable,
    put_back,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemctl import SystemdError
from ansible_collections.vmfleet.suspend.tests.support.competing_host import (
    competing,
    competing_host,
    enable,
    reboot,
    shown,
)

SERVICE = "libvirt-guests.service"
UUID = "5e0b7fd5-0d33-4f5e-9cf4-9f0c1f6c4a11"
DOMAIN = HostGuest(
    "web",
    UUID,
    Source(uri="qemu:///system", domain="web"),
    "running",
    None,
    1,
    None,
    None,
    persistent=True,
)


@pytest.fixture
def host(tmp_path, monkeypatch):
    yield from competing_host(tmp_path, monkeypatch)


@pytest.fixture
def calls(host, tmp_path):
    """libvirt-guests, active and enabled, whose script only writes down how it was called."""
    path = tmp_path / "calls"
    host.write_unit(
        SERVICE,
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=/bin/sh -c 'echo start >>{path}'\nExecStop=/bin/sh -c 'echo stop >>{path}'\n"
        "[Install]\nWantedBy=default.target\n",
    )
    enable(host, SERVICE)
    host.systemctl("start", SERVICE)

    def calls():
        return path.read_text().split()

    assert calls() == ["start"]
    return calls


def libvirt_guests(host):
    return competing(host, DOMAIN, "qemu:///system")["libvirt_guests"]


def test_libvirt_guests_is_found_and_its_stop_does_nothing_while_it_is_switched_off(host, calls):
    starter = libvirt_guests(host)
    assert (starter.blocks, starter.can_disable) == (True, True)
    host.run(apply_disable, plan_disable(starter))
    assert calls() == ["start"]  # to switch it off calls nothing
    after = libvirt_guests(host)
    assert (after.blocks, after.handled, after.can_disable) == (False, True, True)
    host.systemctl("restart", SERVICE)
    host.systemctl("stop", SERVICE)
    assert "stop" not in calls()


@pytest.mark.parametrize("times", [1, 2])
def test_afterwards_it_is_as_before_and_a_second_time_changes_nothing(host, calls, times):
    before = shown(host, SERVICE)
    record = plan_disable(libvirt_guests(host))
    for _time in range(times):
        host.run(apply_disable, record)
    assert shown(host, SERVICE) != before
    assert host.run(put_back, record) == [
        f"removed {record['path']}",
        f"had systemd read {SERVICE} again",
    ]
    assert shown(host, SERVICE) == before
    assert host.run(put_back, record) == []
    assert not os.path.exists(os.path.dirname(record["path"]))
    host.systemctl("stop", SERVICE)
    assert calls() == ["start", "stop"]


def test_it_stays_switched_off_over_a_reboot(host, calls):
    record = plan_disable(libvirt_guests(host))
    host.run(apply_disable, record)
    reboot(host)
    assert calls() == ["start", "start"]
    assert libvirt_guests(host).handled
    host.run(put_back, record)
    assert libvirt_guests(host).blocks
    host.systemctl("stop", SERVICE)
    assert calls() == ["start", "start", "stop"]


def test_to_disable_the_service_would_not_keep_it_from_stopping_guests(host, calls):
    (host.units / "default.target.wants" / SERVICE).unlink()
    host.systemctl("daemon-reload")
    assert libvirt_guests(host).blocks
    host.systemctl("stop", SERVICE)
    assert calls() == ["start", "stop"]


def test_the_operators_own_drop_in_file_is_left_and_counts_again_afterwards(host, calls, tmp_path):
    host.write_unit(
        f"{SERVICE}.d/override.conf",
        f"[Service]\nExecStop=/bin/sh -c 'echo own >>{tmp_path}/calls'\n",
    )
    host.systemctl("daemon-reload")
    record = plan_disable(libvirt_guests(host))
    host.run(apply_disable, record)
    host.systemctl("restart", SERVICE)
    assert calls() == ["start", "start"]
    host.run(put_back, record)
    host.systemctl("stop", SERVICE)
    assert calls() == ["start", "start", "stop", "own"]


def test_a_drop_in_file_that_somebody_changed_is_left_and_told(host, calls):
    record = plan_disable(libvirt_guests(host))
    host.run(apply_disable, record)
    Path(record["path"]).write_text("[Unit]\n")
    told = host.run(put_back, record)
    assert told == [f"left {record['path']} as it is: somebody has changed it"]
    assert Path(record["path"]).exists()


def test_a_run_that_died_after_it_removed_the_file_is_finished(host, calls):
    record = plan_disable(libvirt_guests(host))
    host.run(apply_disable, record)
    os.unlink(record["path"])
    assert host.run(put_back, record) == [f"had systemd read {SERVICE} again"]
    assert libvirt_guests(host).blocks


def test_a_run_that_died_before_it_switched_anything_off_leaves_nothing_to_do(host, calls):
    assert host.run(put_back, plan_disable(libvirt_guests(host))) == []


def test_a_drop_in_file_that_systemd_does_not_read_is_an_error(host, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(_competing_off, "_DIRECTORY", str(tmp_path / "elsewhere"))
    record = plan_disable(libvirt_guests(host))
    with pytest.raises(SystemdError, match="does not use"):
        host.run(apply_disable, record)
    assert host.run(put_back, record) == [f"removed {record['path']}"]


def test_a_masked_service_does_not_compete_and_neither_does_one_that_is_not_there(host):
    assert competing(host, DOMAIN, "qemu:///system") == {}
    (host.units / SERVICE).symlink_to("/dev/null")
    host.systemctl("daemon-reload")
    assert host.show(SERVICE, "LoadState") == "masked"
    assert competing(host, DOMAIN, "qemu:///system") == {}


def test_a_service_that_was_masked_while_it_was_active_stops_no_guests_and_does_not_compete(
    host, calls
):
    (host.units / SERVICE).unlink()
    (host.units / SERVICE).symlink_to("/dev/null")
    host.systemctl("daemon-reload")
    assert (host.show(SERVICE, "LoadState"), host.show(SERVICE, "ActiveState")) == (
        "masked",
        "active",
    )
    assert competing(host, DOMAIN, "qemu:///system") == {}
    host.systemctl("stop", SERVICE)
    assert calls() == ["start"]


def test_its_configuration_and_its_list_are_read(host, calls, tmp_path):
    (tmp_path / "list").write_text(f"qemu:///system {UUID}\n")
    assert not libvirt_guests(host).can_disable
    (tmp_path / "configuration").write_text("ON_BOOT=ignore\n")
    assert libvirt_guests(host).can_disable
    (tmp_path / "configuration").write_text("URIS=xen:///system\n")
    assert competing(host, DOMAIN, "qemu:///system") == {}


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        (SERVICE, "/etc/passwd"),
        (SERVICE, hold_path("other.service")),
        ("../x", hold_path("../x")),
    ],
)
def test_a_journal_that_names_another_file_is_refused(host, unit, path):
    record = {"kind": "libvirt_guests", "unit": unit, "path": path, "text": ""}
    for act in (apply_disable, put_back):
        with pytest.raises(Refused, match="by hand"):
            host.run(act, record)
