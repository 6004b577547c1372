# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt-guests.sh of this host, on a libvirtd of the test's own: what the decisions about it
(`_host._competing_libvirt`) take for granted."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_libvirt import (
    LIST_FILE,
    listed_in,
    settings_of,
)

SCRIPTS = ("/usr/lib/libvirt/libvirt-guests.sh", "/usr/libexec/libvirt-guests.sh")
CONFIGURATIONS = ("/etc/default/libvirt-guests", "/etc/sysconfig/libvirt-guests")


def only(paths):
    found = [path for path in paths if Path(path).exists()]
    if not found:
        pytest.skip(f"none of {', '.join(paths)} is on this host")
    return found[0]


@pytest.fixture
def service(libvirt_host, tmp_path):
    """Run the script, configured so, with a lock directory of its own."""
    script, place = only(SCRIPTS), only(CONFIGURATIONS)
    configuration = tmp_path / "configuration"

    def run(verb, configured, **environment):
        configuration.write_text(configured)
        lines = f"mount -t tmpfs tmpfs /run/lock\nmount --bind {configuration} {place}\n"
        words = [*libvirt_host.enter.split(), "unshare", "--mount", "env"]
        words += [f"{name}={value}" for name, value in environment.items()]
        done = subprocess.run(
            [*words, "sh", "-ec", f"{lines}exec {shlex.join([script, verb])}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    yield run
    list_file(libvirt_host).unlink(missing_ok=True)


def list_file(libvirt_host):
    return libvirt_host.directory / "lib" / Path(LIST_FILE).relative_to("/var/lib/libvirt")


def state_of(domain):
    return domain.host.virsh("domstate", domain.name).strip()


def test_its_environment_does_nothing_and_its_list_names_what_it_stopped(
    libvirt_host, domain, service
):
    configured = "ON_SHUTDOWN=suspend\n"
    assert settings_of(configured) == {"ON_SHUTDOWN": "suspend"}
    service("stop", configured, URIS="", ON_SHUTDOWN="shutdown", PERSISTENT_ONLY="true")
    assert "Managed save:   yes" in libvirt_host.virsh("dominfo", domain.name)
    assert listed_in(list_file(libvirt_host).read_text()) == {domain.uuid}
    libvirt_host.virsh("managedsave-remove", domain.name)


def test_a_list_that_has_a_saved_guest_has_it_booted_afresh(libvirt_host, domain, service, store):
    libvirt_host.virsh("save", domain.name, store / "guest.save")
    list_file(libvirt_host).write_text(f"default {domain.uuid}\n")
    service("start", "ON_BOOT=start\n")
    assert state_of(domain) == "running"
    assert not list_file(libvirt_host).exists()


def test_a_list_is_thrown_away_where_it_is_configured_to_start_nothing(
    libvirt_host, domain, service, store
):
    libvirt_host.virsh("save", domain.name, store / "guest.save")
    list_file(libvirt_host).write_text(f"default {domain.uuid}\n")
    service("start", "ON_BOOT=ignore\n")
    assert (state_of(domain), list_file(libvirt_host).exists()) == ("shut off", False)


def test_guests_that_were_suspended_before_it_stops_are_nothing_to_it(
    libvirt_host, domain, service, store
):
    libvirt_host.virsh("save", domain.name, store / "guest.save")
    service("stop", "ON_SHUTDOWN=suspend\nON_BOOT=start\n")
    assert not list_file(libvirt_host).exists()
    service("start", "ON_SHUTDOWN=suspend\nON_BOOT=start\n")
    assert state_of(domain) == "shut off"


def test_started_again_while_they_run_it_leaves_listed_guests_alone_and_removes_its_list(
    libvirt_host, domain, service
):
    list_file(libvirt_host).write_text(f"default {domain.uuid}\n")
    pid = domain.pid
    service("restart", "ON_SHUTDOWN=suspend\nON_BOOT=start\n")
    assert (state_of(domain), domain.pid) == ("running", pid)
    assert not list_file(libvirt_host).exists()
