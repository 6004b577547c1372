# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples in the documentation of the modules for a whole host, run as they stand."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import yaml

from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest

MODULES = ("qemu_host_suspend", "qemu_host_resume", "qemu_guest_info")
PACKAGE = "ansible_collections.vmfleet.suspend.plugins.modules"
GUESTS = ("web01", "db01", "scratch01", "tenant1-web", "controller1")
DOMAINS = ("etcd1", "etcd2", "etcd3")


@pytest.fixture
def domains(libvirt_host, tmp_path):
    found = [LibvirtTinyGuest(tmp_path, libvirt_host, name=name) for name in DOMAINS]
    for domain in found:
        domain.start()
        domain.wait_passes(1)
    yield found
    for domain in found:
        domain.close()
        libvirt_host.virsh("undefine", domain.name)


def examples(sockets, uri):
    """By module the tasks, with this machine's places in them."""
    tasks = {}
    for module in MODULES:
        text = importlib.import_module(f"{PACKAGE}.{module}").EXAMPLES
        assert "/run/qemu/*.qmp" in text or module == "qemu_host_resume"
        here = text.replace("[/run/qemu/*.qmp]", json.dumps(sockets))
        tasks[module] = yaml.safe_load(here.replace("qemu:///system", uri))
    return tasks


@pytest.mark.full
def test_the_examples_take_a_host_down_and_bring_it_back(tiny_guest, domains, tmp_path):
    guests = [tiny_guest(name=name).start() for name in GUESTS]
    for guest in guests:
        guest.wait_passes(1)
    (tmp_path / "store").mkdir(mode=0o700)
    place = {"store": str(tmp_path / "store"), "journal": str(tmp_path / "journal")}
    of = examples([guest.qmp_socket for guest in guests], domains[0].host.uri)
    planned, all_of_them, cluster = of["qemu_host_suspend"]
    every_guest, one_tenant = of["qemu_host_resume"]
    look, name_them, learn = of["qemu_guest_info"]
    ended = {"assert": {"that": ["host.guests | map(attribute='name') | list == ['controller1']"]}}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {f"vmfleet.suspend.{module}": place for module in MODULES},
        "tasks": [
            *(look, name_them, planned, all_of_them, learn, look, ended),
            *(one_tenant, every_guest, cluster, every_guest),
        ],
    }
    playbook = tmp_path / "examples.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))
    python = f"ansible_python_interpreter={sys.executable}"
    subprocess.run(["ansible-playbook", str(playbook), "-e", python], check=True, timeout=300)
    assert all(goes_on(guest) for guest in guests)
    for domain in domains:
        domain.wait_passes(2)
        assert domain.mismatches == []
