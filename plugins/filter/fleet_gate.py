# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_gate
short_description: Say which hosts of a batch are not taken, and why
version_added: 1.0.0
description:
  - What the collection's own playbooks ask before each batch. A host is not taken when its look
    failed, when more hosts have failed than the budget allows, or when it does not fit into what is
    left of the window.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: The hosts of the plan, as P(vmfleet.suspend.fleet_plan#filter) returns them.
    type: list
    elements: dict
    required: true
  knobs:
    description: As P(vmfleet.suspend.fleet_knobs#filter) returns them.
    type: dict
    required: true
  batch:
    description: The hosts of the batch.
    type: list
    elements: str
    required: true
  runs:
    description: What became of the hosts of earlier batches, as the playbooks keep it.
    type: list
    elements: dict
    required: true
  now:
    description: The controller's time in seconds since the epoch.
    type: float
    required: true
  verb:
    description: What is done.
    type: str
    choices: [suspend, window]
    required: true
"""

EXAMPLES = r"""
- name: See which hosts are taken
  ansible.builtin.set_fact:
    left_out: "{{ hosts | vmfleet.suspend.fleet_gate(knobs, batch, runs, time, 'suspend') }}"
"""

RETURN = r"""
_value:
  description: The reason for each host that is not taken, by host.
  type: dict
  sample:
    kvm07: "not begun: it needs 340 s, and 120 s of the window are left beside its reserve"
"""

import typing as t

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_gate import gate
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_run import HostRun


def fleet_gate(
    hosts: t.Sequence[t.Mapping[str, t.Any]],
    knobs: t.Mapping[str, t.Any],
    batch: t.Sequence[str],
    runs: t.Sequence[t.Mapping[str, t.Any]],
    now: float,
    verb: str,
) -> dict[str, str]:
    return gate(hosts, knobs, batch, [HostRun.of(run) for run in runs], now, verb=verb)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_gate": fleet_gate}
