# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's playbooks as AWX runs them: by ansible-runner, and in slices of the inventory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.scripted_fleet import scripted_fleet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "docsite" / "rst" / "scaling.rst"


@pytest.fixture(scope="module")
def fleet():
    with scripted_fleet(hosts=2, guests_per_host=2) as made:
        yield made


def test_a_named_guest_or_host_may_be_in_another_slice(fleet):
    guests = [{"name": "m0-0", "depends_on": ["m1-0"]}, {"name": "m1-0", "priority": 5}]
    fleet.write_inventory(["kvm000"], vm_suspend_guests=guests)
    ((playbook, words),) = re.findall(r"-i hosts.yml vmfleet.suspend.(\w+) (.*)", PAGE.read_text())
    named = {"fleet_hosts": "kvm000,kvm001", "fleet_guests": ["m0-0", "m1-0"]}
    play = fleet.play(playbook, *words.split(), "--check", **named)
    assert play.ended_well, play.printed
    assert "kvm000: 1 guests" in play.printed
    assert "kvm001: " not in play.printed


def test_ansible_runner_has_plan_and_progress_as_events(fleet, tmp_path):
    fleet.write_inventory(fleet.hosts)
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.json").symlink_to(fleet.inventory)
    write_examples(tmp_path)
    (words,) = re.findall(r"\$ ansible-runner (.*)", PAGE.read_text())
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-runner", *words.split(), "--ident", "one"],
        env=fleet.environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = (tmp_path / "artifacts" / "one" / "job_events").glob("*.json")
    events = [json.loads(file.read_text()) for file in files]
    progress = [event for event in events if re.match(r"\[kvm00\d\] m\d-\d", event["stdout"])]
    assert {event["event"] for event in progress} == {"verbose"}
    assert {event["stdout"].split()[1] for event in progress} == {
        "m0-0:",
        "m0-1:",
        "m1-0:",
        "m1-1:",
    }
    (plan,) = [event for event in events if "In all: 2 of 2 hosts, 4 guests" in event["stdout"]]
    assert plan["event_data"]["task"] == "Show the plan"
    assert list((tmp_path / "reports" / "by-hand").glob("suspend-*.json"))


def write_examples(directory):
    """The page's files, each of which begins with its name."""
    for block in re.findall(r"code-block:: yaml\n\n((?:   .*\n|\n)+)", PAGE.read_text()):
        text = textwrap.dedent(block)
        path = directory / text.split("\n")[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
