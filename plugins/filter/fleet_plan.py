# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_plan
short_description: Make the plan of a fleet from the plans of its hosts
version_added: 1.0.0
description:
  - What the collection's own playbooks call. Hosts are put in order, and guests into waves, where
    guests of one host depend on guests of another or have other priorities.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: What the look at each host told.
    type: list
    elements: dict
    required: true
  knobs:
    description: As P(vmfleet.suspend.fleet_knobs#filter) returns them.
    type: dict
    required: true
  verb:
    description: What is planned. V(window) suspends and resumes each batch before the next.
    type: str
    choices: [suspend, resume, window]
    required: true
  now:
    description: The controller's time in seconds since the epoch.
    type: float
    required: true
  warnings:
    description: What else is to be told.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Plan the suspend
  ansible.builtin.set_fact:
    fleet: "{{ looks | vmfleet.suspend.fleet_plan(knobs, 'suspend', time) }}"
  vars:
    time: "{{ now().timestamp() }}"
"""

RETURN = r"""
_value:
  description: The plan; RV(_value.lines) says it for people, and problems keep all from beginning.
  type: dict
  contains:
    hosts:
      description: Hosts in the order in which they are taken, each with its guests.
      type: list
      elements: dict
    wave_count:
      description: How many waves there are; each host has its part of each as C(waves).
      type: int
    too_early:
      description: Why nothing may be begun yet, where the window is not open.
      type: list
      elements: str
    forecast:
      description:
        - How long it will take, and for which hosts the window has no time. Null for a resume.
      type: dict
    batches:
      description: Hosts that are taken together.
      type: list
      elements: list
    problems:
      description: Why nothing may be begun.
      type: list
      elements: str
    warnings:
      description: What the operator should know.
      type: list
      elements: str
    lines:
      description: The plan for people.
      type: list
      elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_forecast import foresee
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_gate import too_early, too_late
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_order import RESUME
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_plan import (
    HostLook,
    make_fleet_plan,
    no_time,
    plan_lines,
)


def fleet_plan(
    told: t.Sequence[t.Mapping[str, t.Any]],
    knobs: t.Mapping[str, t.Any],
    verb: str,
    now: float,
    warnings: t.Sequence[str] = (),
) -> dict[str, t.Any]:
    try:
        made = make_fleet_plan([HostLook.of(one) for one in told], knobs["serial"], verb)
    except VmfleetError as exc:
        raise AnsibleFilterError(exc.message) from exc
    plan = made.as_dict()
    plan["warnings"] += warnings
    plan["forecast"], plan["protected"], plan["too_early"] = None, [], []
    if verb != RESUME:
        obstacle = too_late(knobs, now)
        plan["problems"] += [obstacle] if obstacle is not None else []
        early = too_early(knobs, now)
        plan["too_early"] += [early] if early is not None else []
        plan["forecast"] = foresee(plan, knobs, now, verb).as_dict()
        plan["warnings"] += no_time(plan["forecast"])
        plan["protected"] += knobs["protected"]
    plan["lines"] = plan_lines(plan)
    return plan


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_plan": fleet_plan}
