# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: Say what a run of a fleet's playbook did
version_added: 1.0.0
description:
  - What the collection's own playbooks write as JSON at their end.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: The plan, as P(vmfleet.suspend.fleet_plan#filter) returns it.
    type: dict
    required: true
  runs:
    description: What became of each host that was begun, as the playbooks keep it.
    type: list
    elements: dict
    required: true
  knobs:
    description: As P(vmfleet.suspend.fleet_knobs#filter) returns them.
    type: dict
    required: true
  verb:
    description: What was done.
    type: str
    choices: [plan, suspend, resume, window]
    required: true
  began:
    description: When the playbook began, in seconds since the epoch.
    type: float
    required: true
  ended:
    description: When it ended, in seconds since the epoch.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Say what was done
  ansible.builtin.set_fact:
    report: "{{ plan | vmfleet.suspend.fleet_report(runs, knobs, 'suspend', began, ended) }}"
"""

RETURN = r"""
_value:
  description: The report; its times are seconds since C(began), and hosts that failed come first.
  type: dict
"""

import typing as t

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_report import make_report
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_run import HostRun


def fleet_report(
    plan: t.Mapping[str, t.Any],
    runs: t.Sequence[t.Mapping[str, t.Any]],
    knobs: t.Mapping[str, t.Any],
    verb: str,
    began: float,
    ended: float,
) -> dict[str, t.Any]:
    return make_report(plan, [HostRun.of(run) for run in runs], knobs, verb, began, ended)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_report": fleet_report}
