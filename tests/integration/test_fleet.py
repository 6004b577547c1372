# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's playbooks, on hosts that are reached over ssh, with real guests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from ansible_collections.vmfleet.suspend.tests.support import scenario
from ansible_collections.vmfleet.suspend.tests.support.fleet import AWAY, Fleet
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_A_FLEET
from ansible_collections.vmfleet.suspend.tests.support.ssh_hosts import SshHosts, why_not

ROLES = Path(__file__).resolve().parents[2] / "roles"
LATER = "2099-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = SshHosts(tmp_path_factory.mktemp("ssh"), [f"kvm{number}" for number in range(1, 6)])
    yield made
    made.close()


@pytest.fixture
def fleet(hosts, tiny_guest, tmp_path):
    """Two hosts with two guests each."""
    return Fleet(hosts, tiny_guest, tmp_path, {"kvm1": ["db1", "web1"], "kvm2": ["db2", "web2"]})


ALL = ["db1", "db2", "web1", "web2"]


@pytest.mark.full
def test_a_fleet_is_planned_suspended_and_resumed_and_a_second_run_changes_nothing(fleet):
    planned = fleet.play("suspend_fleet", "--check")
    assert fleet.images() == [] and fleet.alive() == ALL and not fleet.reports()
    assert "In all: 2 of 2 hosts, 4 guests" in planned.text
    assert "cannot be told" in planned.text  # which guest the controller is: no DMI in a container
    fleet.play("suspend_fleet", window_end=LATER)
    assert fleet.images() == ALL and fleet.alive() == []
    assert fleet.holds() == {"kvm1": LATER, "kvm2": LATER}
    assert fleet.play("suspend_fleet").changed == {}
    fleet.play("resume_fleet")
    fleet.all_go_on()
    assert fleet.holds() == {}
    assert fleet.play("resume_fleet").changed == {}
    assert [report["verb"] for report in fleet.reports()] == [
        "suspend",
        "suspend",
        "resume",
        "resume",
    ]


@pytest.mark.full
def test_the_plan_alone_touches_nothing_and_its_report_has_it(fleet):
    fleet.play("plan_fleet", fleet_guests="web*")
    assert fleet.images() == [] and fleet.alive() == ALL
    [report] = fleet.reports()
    assert report["verb"] == "plan"
    assert [guest["name"] for guest in report["hosts"][0]["guests"]] == ["web1"]


@pytest.mark.full
def test_guests_are_taken_out_by_patterns_and_what_is_protected_is_never_suspended(fleet):
    fleet.play("suspend_fleet", fleet_guests="*1,!db1", protected_guests="*2")
    assert fleet.alive() == ["db1", "db2", "web2"]
    fleet.play("suspend_fleet", fleet_guests="*2", protected_guests=["web2"])
    assert fleet.alive() == ["db1", "web2"]
    fleet.play("resume_fleet", fleet_guests="db*")
    assert fleet.alive() == ["db1", "db2", "web2"]
    fleet.play("resume_fleet")
    fleet.all_go_on()


@pytest.mark.full
def test_the_guest_that_the_controller_runs_in_is_never_suspended(fleet):
    """/sys/class is another one for the controller, as DMI's product UUID is not everywhere."""
    own = fleet.guests["web2"].uuid
    made = (
        "mount -t tmpfs none /sys/class && mkdir -p /sys/class/dmi/id && "
        f"echo {own.upper()} >/sys/class/dmi/id/product_uuid"
    )
    play = fleet.play("plan_fleet", inside=["unshare", "--mount", "sh", "-ec", made])
    assert f"Never suspended: {own}" in play.text
    [report] = fleet.reports()
    assert sorted(guest["name"] for host in report["hosts"] for guest in host["guests"]) == [
        *("db1", "db2", "web1")
    ]


@pytest.mark.full
def test_databases_go_down_after_their_clients_on_other_hosts_and_come_up_before_them(fleet):
    wishes = [{"name": "web1", "depends_on": ["db2"]}, {"name": "web2", "depends_on": ["db1"]}]
    down = fleet.play("suspend_fleet", vm_suspend_guests=wishes)
    assert "wave 2" in down.text
    went = fleet.turns("suspend")
    assert went["db2"] >= max(went["web1"], went["web2"])
    assert went["db1"] >= max(went["web1"], went["web2"])
    fleet.play("resume_fleet")
    came = fleet.turns("resume")
    assert min(came["web1"], came["web2"]) >= max(came["db1"], came["db2"])
    fleet.all_go_on()


@pytest.mark.full
def test_batches_that_would_break_a_dependency_are_refused(fleet):
    wishes = [{"name": "web1", "depends_on": ["db2"]}, {"name": "web2", "depends_on": ["db1"]}]
    refused = fleet.play("suspend_fleet", fails=True, vm_suspend_guests=wishes, fleet_serial=1)
    assert "needs db" in refused.text and fleet.alive() == ALL


def test_a_host_that_is_unreachable_holds_up_no_other_and_is_named_first(fleet):
    with fleet.inventory.open("a") as file:
        file.write(f"[kvm_hosts]\nkvm2 ansible_ssh_common_args='{AWAY}'\n")
    play = fleet.play("suspend_fleet", fails=True)
    assert fleet.alive() == ["db2", "web2"] and fleet.images() == ["db1", "web1"]
    [report] = fleet.reports()
    assert [(host["host"], host["state"]) for host in report["hosts"]] == [
        ("kvm2", "unreachable"),
        ("kvm1", "done"),
    ]
    assert report["lines"][0].startswith("kvm2: UNREACHABLE: ")
    assert play.failed == ["kvm2"]


@pytest.mark.full
def test_a_suspend_whose_controller_is_killed_is_waited_for_and_costs_no_guest(fleet):
    slow = [{"name": "db1", "max_bandwidth": 1 << 19}]
    first = fleet.begin("suspend_fleet", vm_suspend_guests=slow)
    read_until(first, "db1: writing")
    # However long the second run takes to begin, the first one's save lasts until then.
    fleet.guests["db1"].freeze()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second = fleet.begin("suspend_fleet")
    read_until(second, "RETRYING: [kvm1]")
    fleet.guests["db1"].thaw()
    printed, _none = second.communicate(timeout=240)
    assert second.returncode == 0, printed
    assert fleet.images() == ALL and fleet.alive() == []


@pytest.mark.full
def test_a_resume_whose_controller_is_killed_costs_no_guest(fleet):
    fleet.play("suspend_fleet")
    first = fleet.begin("resume_fleet")
    read_until(first, "restored in")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    fleet.play("resume_fleet")
    fleet.all_go_on()


@pytest.mark.full
@pytest.mark.parametrize(
    ("comes_up_at_once", "words"),
    [
        (False, "became unreachable while it suspended its guests"),
        (True, "it was killed, or the host was started anew"),
    ],
)
def test_a_host_that_goes_down_while_it_suspends_is_told_and_holds_up_no_other(
    fleet, hosts, comes_up_at_once, words
):
    slow = [{"name": "db1", "max_bandwidth": 1 << 19}]
    run = fleet.begin("suspend_fleet", vm_suspend_guests=slow)
    read_until(run, "db1: writing")
    hosts.end("kvm1")
    try:
        if not comes_up_at_once:
            printed, _none = run.communicate(timeout=240)
    finally:  # other tests have the same hosts
        hosts.boot("kvm1")
    if comes_up_at_once:
        printed, _none = run.communicate(timeout=240)
    assert run.returncode != 0, printed
    [down, other] = fleet.reports()[0]["hosts"]
    assert (down["host"], down["state"], other["state"]) == ("kvm1", "failed", "done")
    assert words in down["complaint"]
    fleet.play("resume_fleet", fails=True)
    assert fleet.alive() == ["db2", "web1", "web2"]
    complaint = fleet.reports()[-1]["hosts"][0]["complaint"]
    assert "db1" in complaint and "RAM is lost" in complaint


def read_until(run, words):
    said = []
    for line in run.stdout:
        if words in line:
            return
        said.append(line)
    raise AssertionError(f"it ended without {words!r}: {''.join(said)}")


@pytest.mark.full
def test_a_guest_whose_save_fails_runs_on_and_the_others_are_told_as_saved(fleet):
    slow = [{"name": "db1", "max_bandwidth": 1 << 20, "timeout": 2}]
    play = fleet.play("suspend_fleet", fails=True, vm_suspend_guests=slow)
    assert play.failed == ["kvm1"] and fleet.alive() == ["db1"]
    [report] = fleet.reports()
    assert report["totals"]["guests_suspended"] == 3
    [host, _other] = report["hosts"]
    assert (host["host"], host["state"], host["guests"][0]["name"]) == ("kvm1", "failed", "db1")
    assert "db1" in host["complaint"]
    fleet.play("suspend_fleet")
    assert fleet.alive() == []


@pytest.mark.full
def test_playbooks_that_follow_each_other_in_one_run_know_nothing_of_each_other(fleet):
    playbooks = [f"vmfleet.suspend.{verb}_fleet" for verb in ("suspend", "resume", "suspend")]
    fleet.playbook([{"import_playbook": playbook} for playbook in playbooks])
    assert fleet.images() == ALL and fleet.alive() == []
    assert [report["totals"]["guests_resumed"] for report in fleet.reports()] == [0, 4, 0]


def test_knobs_in_the_inventory_of_a_group_are_refused(fleet):
    with fleet.inventory.open("a") as file:
        file.write("[kvm_hosts:vars]\nprotected_guests=web1\nvm_suspend_exclude=['db1']\n")
    text = fleet.play("plan_fleet", fails=True).text
    assert "Knobs are extra variables" in text and "vm_suspend_exclude are for the roles" in text


@pytest.mark.full
def test_the_examples_of_the_roles_take_a_fleet_down_and_bring_it_back(fleet):
    down, now = (example(role, number) for role, number in (("vm_suspend", 0), ("vm_resume", 1)))
    fleet.playbook(yaml.safe_load(down))
    assert fleet.alive() == []
    fleet.playbook([{"hosts": "kvm_hosts", "gather_facts": False, "tasks": yaml.safe_load(now)}])
    fleet.all_go_on()


def example(role, number):
    readme = ROLES / role / "README.md"
    return re.findall(r"```yaml\n(.*?)```", readme.read_text(), re.DOTALL)[number]


def test_a_window_in_check_mode_passes_although_nothing_is_suspended(fleet):
    fleet.tasks([{"name": "Mark", "ansible.builtin.file": touch("{{ mark }}/1")}])
    knobs = {"window_tasks": "tasks.yml", "mark": fleet.place, "window_end": LATER}
    fleet.play("maintenance_window", "--check", **knobs)
    assert fleet.images() == [] and fleet.alive() == ALL and fleet.marks() == []


def test_tasks_that_ansible_cannot_read_are_found_before_anything_is_touched(fleet):
    fleet.tasks([{"name": "Upgrade", "no.such.module": {}}])
    fleet.play("maintenance_window", fails=True, window_tasks="tasks.yml", window_end=LATER)
    assert fleet.images() == [] and fleet.alive() == ALL


@pytest.mark.full
def test_tasks_are_not_run_where_other_guests_run_unless_that_is_allowed(fleet):
    fleet.tasks([{"name": "Mark", "ansible.builtin.file": touch("{{ mark }}/1")}])
    knobs = {"window_tasks": "tasks.yml", "mark": fleet.place, "window_end": LATER}
    knobs["fleet_guests"] = ["*1", "web2"]
    fleet.play("maintenance_window", fails=True, **knobs)
    [report] = fleet.reports()
    assert [host["state"] for host in report["hosts"]] == ["left_out", "done"]
    assert "db2 would run on beside" in report["hosts"][0]["complaint"]
    assert fleet.marks() == ["kvm1/1"]
    fleet.play("maintenance_window", window_beside_guests=True, **knobs)
    assert fleet.marks() == ["kvm1/1", "kvm2/1"]
    fleet.all_go_on()


@pytest.mark.full
def test_a_task_that_is_run_once_and_fails_leaves_nobody_suspended(fleet):
    """Ansible fails every host of the batch for it."""
    fleet.tasks([{"name": "Ask", "ansible.builtin.fail": {"msg": "no"}, "run_once": True}])
    knobs = {"window_tasks": "tasks.yml", "window_end": LATER, "fleet_max_fail_percentage": 100}
    fleet.play("maintenance_window", fails=True, **knobs)
    [report] = fleet.reports()
    assert [host["state"] for host in report["hosts"]] == ["failed", "failed"]
    assert report["totals"]["guests_resumed"] == 4
    fleet.all_go_on()


@pytest.mark.full
def test_a_host_that_fails_where_nothing_foresaw_it_is_told_with_the_task_and_its_words(fleet):
    """Its Python goes between the look and its batch."""
    python = fleet.directory / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with fleet.inventory.open("a") as file:
        file.write(f"[kvm_hosts]\nkvm2 ansible_python_interpreter={python}\n")
    fleet.tasks(
        [{"name": "Upgrade", "ansible.builtin.file": {"path": str(python), "state": "absent"}}]
    )
    knobs = {"window_tasks": "tasks.yml", "fleet_serial": 1, "fleet_max_fail_percentage": 100}
    fleet.play("maintenance_window", fails=True, window_end=LATER, **knobs)
    [report] = fleet.reports()
    complaint = report["hosts"][0]["complaint"]
    assert complaint.startswith("See who runs here: ") and str(python) in complaint
    assert [host["state"] for host in report["hosts"]] == ["failed", "done"]
    assert fleet.alive() == ALL


@pytest.mark.full
def test_hosts_that_boot_within_a_window_wait_for_it_and_their_guests_come_back_once(fleet, hosts):
    """Each runs what its unit runs (role vm_resume), while the playbook goes on."""
    (fleet.directory / "ssh").symlink_to(hosts.inventory.parent)
    build = ROLES / "vm_resume" / "files" / "build_program.py"
    utils = ROLES.parent / "plugins" / "module_utils"
    subprocess.run([sys.executable, build, utils, fleet.directory / "program"], check=True)
    for host in ("kvm1", "kvm2"):
        places = {name: f"{fleet.directory}/{host}/{name}" for name in ("store", "journal")}
        (fleet.directory / host / "options.json").write_text(json.dumps(places))
    reboot = [sys.executable, "-m", scenario.__name__, "reboot", str(fleet.directory)]
    boot = f"{sys.executable} -I {fleet.directory}/program --options {{{{ mark }}}}/options.json"
    fleet.tasks(
        [
            {
                "name": "Reboot",
                "ansible.builtin.command": {"argv": [*reboot, "{{ inventory_hostname }}"]},
                "environment": {"PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]},
                "delegate_to": "localhost",
                "vars": {"ansible_connection": "local"},
            },
            {"name": "Wait for it", "ansible.builtin.wait_for_connection": {"timeout": 30}},
            {
                "name": "Have the unit started",
                "ansible.builtin.shell": {
                    "cmd": f"{boot} resume >{{{{ mark }}}}/said 2>&1 && date >{{{{ mark }}}}/1"
                },
                "async": 600,
                "poll": 0,
            },
            {
                "name": "Wait until it waits",
                "ansible.builtin.wait_for": {
                    "path": "{{ mark }}/said",
                    "search_regex": "is held until",
                    "timeout": 30,
                },
            },
        ]
    )
    knobs = {"window_tasks": "tasks.yml", "mark": fleet.place, "window_end": LATER}
    fleet.play("maintenance_window", **knobs)
    assert fleet.holds() == {}
    fleet.all_go_on()
    [report] = fleet.reports()
    assert [host["state"] for host in report["hosts"]] == ["done", "done"]
    assert report["totals"]["guests_resumed"] == 4
    end = time.monotonic() + 60
    while fleet.marks() != ["kvm1/1", "kvm2/1"]:
        assert time.monotonic() < end, (fleet.directory / "kvm1" / "said").read_text()
        time.sleep(0.1)
    fleet.all_go_on()


@pytest.mark.full
@pytest.mark.parametrize("controller", ["2.18", "2.19"], indirect=True)
def test_a_window_with_an_older_ansible_core(fleet, controller):
    fleet.programs = controller
    wishes = [{"name": "web1", "depends_on": ["db2"]}]
    fleet.tasks([{"name": "Mark", "ansible.builtin.file": touch("{{ mark }}/1")}])
    knobs = {"window_tasks": "tasks.yml", "mark": fleet.place, "window_end": LATER}
    fleet.play("maintenance_window", "--check", **knobs)
    fleet.play("maintenance_window", vm_suspend_guests=wishes, **knobs)
    assert fleet.images() == ALL and fleet.marks() == ["kvm1/1", "kvm2/1"]
    fleet.all_go_on()
    [report] = fleet.reports()
    assert [host["state"] for host in report["hosts"]] == ["done", "done"]
    assert fleet.turns("suspend")["db2"] >= fleet.turns("suspend")["web1"]
    with fleet.inventory.open("a") as file:
        file.write(f"[kvm_hosts]\nkvm2 ansible_ssh_common_args='{AWAY}'\n")
    down = fleet.play("suspend_fleet", fails=True)
    assert down.failed == ["kvm2"], down.text
    assert fleet.alive() == ["db2", "web2"]


@pytest.mark.full
def test_nothing_begins_outside_of_the_window_or_without_hosts_or_tasks(fleet):
    """The controller's clock counts, whatever its time zone."""
    for knobs, words in (
        ({"window_start": LATER}, "The window opens in"),
        ({"window_end": "2001-01-01T00:00:00Z"}, "The window ended"),
        ({"fleet_hosts": "kvm7"}, "No host of the inventory matches fleet_hosts=kvm7"),
        ({"window_tasks": "nowhere.yml"}, "there is no file"),
    ):
        assert words in fleet.play("maintenance_window", fails=True, **knobs).text
    limited = fleet.play("suspend_fleet", "--limit=kvm1", fails=True)
    assert "Choose hosts with -e fleet_hosts=" in limited.text
    assert fleet.images() == [] and fleet.alive() == ALL


def touch(path):
    return {"path": path, "state": "touch"}


class Window:
    """A maintenance window in which everything goes wrong somewhere, seen once: kvm1 is lost, the
    whole of its batch; then kvm2 is fine, kvm3 fails in the operator's tasks, kvm4 in its resume;
    then kvm5 would be above the budget."""

    TASKS = (
        {"name": "Mark", "ansible.builtin.file": touch("{{ mark }}/1")},
        {
            "name": "Lose it",
            "ansible.builtin.set_fact": {"ansible_ssh_common_args": AWAY},
            "when": "inventory_hostname == 'kvm1'",
        },
        {
            "name": "Upgrade",
            "ansible.builtin.command": {"argv": ["sh", "-c", "exit 3"]},
            "when": "inventory_hostname == 'kvm3'",
        },
        {
            "name": "Hide the images",
            "ansible.builtin.command": {"argv": ["mv", "{{ mark }}/store", "{{ mark }}/hidden"]},
            "when": "inventory_hostname == 'kvm4'",
        },
        {"name": "Mark again", "ansible.builtin.file": touch("{{ mark }}/2")},
    )

    def __init__(self, fleet):
        fleet.tasks(list(self.TASKS))
        self.fleet = fleet
        self.play = fleet.play(
            "maintenance_window",
            fails=True,
            window_tasks="tasks.yml",
            mark=fleet.place,
            fleet_serial=[1, 3],
            fleet_max_fail_percentage=20,
            window_end=LATER,
        )
        [self.report] = fleet.reports()
        self.hosts = {host["host"]: host for host in self.report["hosts"]}
        self.alive = fleet.alive()
        self.marks = fleet.marks()


@pytest.fixture(scope="module")
def window(hosts, module_tiny_guest, tmp_path_factory):
    guests = {f"kvm{number}": [f"web{number}"] for number in range(1, 6)}
    make_guest = partial(module_tiny_guest, **ONE_OF_A_FLEET)
    return Window(Fleet(hosts, make_guest, tmp_path_factory.mktemp("window"), guests))


def test_in_a_window_a_host_without_trouble_is_maintained_and_its_guests_are_back(window):
    assert window.hosts["kvm2"]["state"] == "done"
    assert window.hosts["kvm2"]["maintained"] is not None
    assert {"kvm2/1", "kvm2/2"} <= set(window.marks) and "web2" in window.alive


def test_in_a_window_a_host_whose_tasks_fail_gets_its_guests_back(window):
    assert window.hosts["kvm3"]["state"] == "failed"
    assert "the operator's task Upgrade failed" in window.hosts["kvm3"]["complaint"]
    assert "kvm3/1" in window.marks and "kvm3/2" not in window.marks
    assert "web3" in window.alive


def test_in_a_window_a_host_whose_resume_fails_is_told_with_the_reason(window):
    assert window.hosts["kvm4"]["state"] == "failed"
    assert "web4" in window.hosts["kvm4"]["complaint"] and "web4" not in window.alive


def test_in_a_window_a_host_that_is_lost_stays_held_and_other_batches_go_on(window):
    """Ansible itself would have ended the playbook with the last host of the first batch."""
    assert window.hosts["kvm1"]["state"] == "lost"
    assert window.report["lines"][0].startswith("kvm1: LOST: ")
    assert "web1" not in window.alive
    assert window.fleet.holds()["kvm1"] == LATER


def test_in_a_window_no_batch_begins_above_the_failure_budget(window):
    assert window.hosts["kvm5"]["state"] == "left_out"
    assert "3 of 5 hosts failed before (kvm1, kvm3, kvm4)" in window.hosts["kvm5"]["complaint"]
    assert "web5" in window.alive and "kvm5/1" not in window.marks


@pytest.mark.full
def test_after_a_window_resume_fleet_brings_back_who_is_missing(window):
    assert re.findall(r"(?m)^(kvm\d) .*(?:failed|unreachable)=[1-9]", window.play.text) == [
        *("kvm1", "kvm3", "kvm4", "kvm5")
    ]
    (window.fleet.directory / "kvm4" / "hidden").rename(window.fleet.directory / "kvm4" / "store")
    window.fleet.play("resume_fleet")
    window.fleet.all_go_on()
