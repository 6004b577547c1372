# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs its controller: scripted guests, few and many on each host."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.tests.support.scripted_fleet import scripted_fleet

FORKS = 20
FEW, MANY = 5, 20
HOW = f"""\
  Controller: processor time of ansible-playbook, its {FORKS} forks and the shells that they start,
  which is the kernel's account of it as a child, without what the hosts' own Python processes
  waited for in there say of themselves as they end; that is the column of the hosts. The guests'
  monitors are another process and count nowhere. Wall time is that of all of them, on this machine.
"""


HEAD = """
  playbook, hosts x guests        controller /host /guest       wall  /host /guest    hosts
                                                ms     ms                ms     ms  ms each"""


def row(playbook, fleet, play):
    hosts = len(fleet.hosts)
    guests = hosts * fleet.guests_per_host
    controller, wall = play.controller_seconds, play.wall_seconds
    # A machine that is busy with more than this lets a monitor's greeting come too late.
    refused = play.printed.count("FAILED! =>")
    return (
        f"  {playbook:21} {hosts:4} x {fleet.guests_per_host:2}"
        f" {controller:7.1f} s {controller / hosts * 1000:5.0f} {controller / guests * 1000:6.1f}"
        f" {wall:8.1f} s {wall / hosts * 1000:6.0f} {wall / guests * 1000:6.1f}"
        f" {play.module_seconds / hosts * 1000:8.0f}{f'  {refused} failures' if refused else ''}"
    )


@pytest.mark.parametrize(
    ("hosts", "playbooks"),
    [(20, ["suspend_fleet --check", "suspend_fleet"]), (200, ["plan_fleet"])],
    ids=["suspend", "plan"],
)
def test_what_a_fleet_costs_its_controller(hosts, playbooks, monkeypatch):
    monkeypatch.setenv("ANSIBLE_FORKS", str(FORKS))
    print(HEAD)
    plays = {}
    for guests_per_host in (FEW, MANY):
        with scripted_fleet(hosts, guests_per_host) as fleet:
            for playbook in playbooks:
                play = plays[playbook, guests_per_host] = fleet.play(*playbook.split())
                print(row(playbook, fleet, play), flush=True)
    for playbook in playbooks:
        few, many = plays[playbook, FEW], plays[playbook, MANY]
        print(
            f"  {playbook}, {MANY} guests a host / {FEW} guests a host: controller "
            f"{many.controller_seconds / few.controller_seconds:.2f}, wall "
            f"{many.wall_seconds / few.wall_seconds:.2f}, hosts "
            f"{many.module_seconds / few.module_seconds:.2f}"
        )
    print(HOW)
