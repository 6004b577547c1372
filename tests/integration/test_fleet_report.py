# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the fleet's playbooks that writes the report, on several controllers, with hosts that
tell what could be taken for a template or for markup."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_plan import (
    HostLook,
    make_fleet_plan,
)
from ansible_collections.vmfleet.suspend.tests.support.fleet_reports import (
    BEGAN,
    a_run,
    knobs,
    look,
    planned_guest,
    told_guest,
    turn,
)

PART = Path(__file__).resolve().parents[2] / "playbooks" / "parts" / "report.yml"
HOSTILE = "<script>x</script>{{ 7 * 191919 }}{% raw %}"


def told(directory):
    """What the parts before have kept: one host that failed, and one that does not answer."""
    looks = [
        look("kvm1", planned_guest(HOSTILE), planned_guest("db")),
        {"host": "kvm2", "unreachable": True, "error": f"no route {HOSTILE}"},
    ]
    plan = make_fleet_plan([HostLook.of(one) for one in looks], ["100%"], "suspend").as_dict()
    guests = [
        told_guest(HOSTILE, 0.4, 3.5, state="failed", guest_state="running", error=HOSTILE),
        told_guest("db", 4.0, 3.5, bytes=1 << 30, predicted_seconds=3.0, stopped_seconds=2.1),
    ]
    return {
        "fleet_plan": {**plan, "forecast": None},
        "fleet_knobs": {**knobs(), "report": str(directory / "reports")},
        "fleet_began": str(BEGAN),
        "run": a_run("kvm1", error=HOSTILE, suspended=[turn(10, 18, *guests)]),
    }


def plays(directory):
    """Facts are set from a file that is read as from a host, which no controller trusts."""
    read = "{{ (file.content | b64decode | from_json).%s }}"
    facts = {name: read % name for name in ("fleet_plan", "fleet_knobs", "fleet_began", "run")}
    add = {"name": "{{ item }}", "groups": "vmfleet_in_order", "ansible_connection": "local"}
    return [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.slurp": {"src": f"{directory}/told.json"}, "register": "file"},
                {"ansible.builtin.set_fact": facts},
                {"ansible.builtin.add_host": add, "loop": ["kvm1", "kvm2"]},
            ],
        },
        {
            "hosts": "kvm1",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.set_fact": {"fleet_run": "{{ hostvars.localhost.run }}"}}],
        },
        {"import_playbook": str(PART), "vars": {"fleet_verb": "suspend"}},
    ]


@pytest.mark.parametrize(
    "controller",
    [
        pytest.param("2.18", marks=pytest.mark.full),
        pytest.param("2.19", marks=pytest.mark.full),
        "newest",
    ],
    indirect=True,
)
def test_page_and_json_are_written_and_what_hosts_tell_stays_text(controller, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "told.json").write_text(json.dumps(told(tmp_path)))
    (tmp_path / "plays.json").write_text(json.dumps(plays(tmp_path)))
    done = subprocess.run(
        [controller / "ansible-playbook", tmp_path / "plays.json"],
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr  # as hosts failed
    page, report = (
        tmp_path / "reports" / f"suspend-2026-11-28T020000Z.{kind}" for kind in ("html", "json")
    )
    assert str(page) in done.stdout
    assert [path.stat().st_mode & 0o777 for path in (page, report)] == [0o600, 0o600]
    read = json.loads(report.read_text())
    assert [(one["host"], one["state"]) for one in read["hosts"]] == [
        ("kvm2", "unreachable"),
        ("kvm1", "failed"),
    ]
    assert read["hosts"][1]["guests"][0]["name"] == HOSTILE
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>")
    assert "&lt;script&gt;x&lt;/script&gt;{{ 7 * 191919 }}{% raw %}" in text
    assert "<script" not in text and "1343433" not in text + report.read_text() + done.stdout
