# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guide of a maintenance window, and the README's: every command of theirs, on a fleet."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import subprocess
import textwrap
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.fleet import Fleet
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_A_FLEET
from ansible_collections.vmfleet.suspend.tests.support.ssh_hosts import SshHosts, why_not

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = CHECKOUT / "docs" / "docsite" / "rst"
NAMES = {"kvm1": ["db01", "web01"], "kvm2": ["db02", "web02"]}
# Here it would upgrade this very machine.
HARMLESS = [{"name": "Upgrade", "ansible.builtin.file": {"path": "{{ vm_suspend_store }}"}}]


@pytest.fixture
def fleet(tiny_guest, tmp_path):
    """What fleet.rst's group_vars tell, but for libvirt: these hosts have none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "ssh").mkdir()
    hosts = SshHosts(tmp_path / "ssh", list(NAMES))
    try:
        fleet = Fleet(hosts, partial(tiny_guest, **ONE_OF_A_FLEET), tmp_path, NAMES)
        for host, names in NAMES.items():
            links = [
                f"ln -s {fleet.guests[name].qmp_socket} /run/qemu/{name}.qmp" for name in names
            ]
            script = " && ".join(["mkdir /run/qemu", *links])
            subprocess.run(hosts.inside(host, ["sh", "-c", script]), check=True)
        told = block(PAGES / "fleet.rst", "group_vars/kvm_hosts.yml")
        (tmp_path / "group_vars").mkdir()
        (tmp_path / "group_vars" / "kvm_hosts.yml").write_text(
            re.sub(
                "vm_suspend_uri:.*", "ansible_become: false", told.replace("ansible_become", "#")
            )
        )
        yield fleet
    finally:
        hosts.close()


def block(page, name):
    """The example that begins with its file's name."""
    found = re.findall(r"code-block:: yaml\n\n((?:   .*\n|\n)+)", page.read_text())
    (text,) = (text for text in map(textwrap.dedent, found) if text.startswith(f"# {name}"))
    return text


def commands(page):
    """The words behind the inventory, of every run of a fleet's playbook."""
    text = re.sub(r" \\\n\s+", " ", page.read_text())
    runs = re.findall(r"(?m)^ *(?:\$ )?ansible-playbook -i hosts.yml (vmfleet\.\S+)(.*)", text)
    return [(playbook.rpartition(".")[2], shlex.split(words)) for playbook, words in runs]


def tonight(words):
    """With times of today; without what stands for further ones, an end all the same."""
    now = datetime.datetime.now(datetime.UTC)
    times = {"window_start": now, "window_end": now + datetime.timedelta(hours=2)}
    told = " ".join(words).replace("...", "-e window_end=then")
    for name, moment in times.items():
        told = re.sub(rf"{name}=\S+", f"{name}={moment.isoformat()}", told)
    return told.split()


@pytest.mark.full
@pytest.mark.parametrize(
    ("page", "controller"),
    [
        (PAGES / "window.rst", "newest"),
        (PAGES / "window.rst", "2.18"),
        (CHECKOUT / "README.md", "newest"),
    ],
    indirect=["controller"],
)
def test_every_command_of_a_guide_does_what_is_said_of_it(fleet, page, controller):
    fleet.programs = controller
    tasks = fleet.directory / "upgrade.yml"
    assert "maintenance_window" in dict(commands(page))
    for playbook, words in commands(page):
        real = block(PAGES / "window.rst", "upgrade.yml") if "--check" in words else None
        tasks.write_text(real or json.dumps(HARMLESS))
        fleet.play(playbook, *tonight(words))
        if playbook == "suspend_fleet":
            assert fleet.alive() == []
        else:
            fleet.all_go_on()
    journals = [json.loads(path.read_text()) for path in fleet.directory.glob("*/journal/*.json")]
    assert journals and all(journal["closed"] for journal in journals)
