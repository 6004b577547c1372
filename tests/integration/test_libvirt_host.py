# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirtd of the tests' own runs a guest that proves its memory, and touches nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost

# What a test does with a daemon of its own, from start to end.
A_TESTS_RUN = """\
from pathlib import Path
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_by_libvirt, save_by_libvirt
)
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost
host = LibvirtHost()
try:
    host.start()
    guest = LibvirtTinyGuest(Path({place!r}), host, name={name!r})
    guest.start()
    guest.wait_passes(1)
    image = Path({place!r}) / "inner.save"
    save_by_libvirt(guest, image)
    host.restart(fresh=True)
    restore_by_libvirt(guest, image)
    guest.wait_passes(1)
    print("directory", host.directory)
    guest.close()
finally:
    host.close()
"""


def test_a_domain_keeps_its_memory_through_virsh_save_and_restore(libvirt_host, domain, store):
    path = store / "domain.save"
    sparse = ("--image-format", "sparse", "--parallel-channels", 2)
    libvirt_host.virsh("save", domain.name, path, *sparse)
    assert not domain.alive()
    libvirt_host.virsh("restore", path, "--parallel-channels", 2)
    domain.wait_passes(2)
    assert domain.mismatches == []


def test_two_of_them_know_nothing_of_each_other(libvirt_host, domain):
    other = LibvirtHost()
    try:
        other.start()
        assert domain.name in libvirt_host.virsh("list", "--name")
        assert other.virsh("list", "--all", "--name").split() == []
    finally:
        other.close()
    assert domain.alive()


def contents(directory: Path) -> dict[str, str]:
    """A digest of each file, but of logs and sockets, by its path."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "log" not in path.parts
    }


@pytest.fixture
def the_machines(tmp_path):
    """A daemon that stands for the machine's own, in its usual places, with a domain that runs; it
    is one of the tests' seen from inside."""
    host = LibvirtHost()
    guest = None
    try:
        guest = LibvirtTinyGuest(tmp_path, host.start(), name="production")
        guest.start()
        guest.wait_passes(1)
        host.virsh("autostart", guest.name)
        yield host, guest
    finally:
        if guest is not None:
            guest.close()
        host.close()


@pytest.mark.full
def test_a_daemon_that_runs_already_is_untouched_with_its_configuration_and_domains(
    the_machines, tmp_path
):
    host, guest = the_machines
    usual = [*host.enter.split(), "virsh", "--quiet", "--connect", "qemu:///system"]
    listed = subprocess.check_output([*usual, "list", "--all"], text=True)
    assert "production" in listed
    before, pid = contents(host.directory), guest.pid
    (tmp_path / "inside").mkdir()
    # Of the same name, so that a domain or a file of one would be taken for the other's.
    run = A_TESTS_RUN.format(place=str(tmp_path / "inside"), name="production")
    said = subprocess.run(
        [*host.enter.split(), sys.executable, "-c", run],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert contents(host.directory) == before
    assert subprocess.check_output([*usual, "list", "--all"], text=True) == listed
    assert guest.pid == pid
    guest.wait_passes(2)
    assert guest.mismatches == []
    left = Path(said.stdout.split()[1])
    assert not left.exists()
    assert str(left) not in Path("/proc/self/mountinfo").read_text()


def test_its_network_is_its_own(libvirt_host):
    links = subprocess.check_output([*libvirt_host.enter.split(), "ip", "-o", "link"], text=True)
    assert [line.split(":")[1].strip() for line in links.splitlines()] == ["lo"]
