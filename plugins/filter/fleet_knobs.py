# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_knobs
short_description: Read and check the extra variables of the fleet's playbooks
version_added: 1.0.0
description:
  - What the collection's own playbooks call with what they were given. It says which one cannot
    be, and makes paths absolute from the directory in which C(ansible-playbook) was called.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: The variables by their names, as text where they come from a command line.
    type: dict
    required: true
  variables:
    description: The names of all variables, among which misspelled ones are looked for.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read what was given
  ansible.builtin.set_fact:
    fleet_settings: "{{ given | vmfleet.suspend.fleet_knobs }}"
  vars:
    given:
      fleet_guests: "{{ fleet_guests | default([]) }}"
      window_end: "{{ window_end | default(none) }}"
"""

RETURN = r"""
_value:
  description: Every knob with its value, and what follows from them.
  type: dict
  sample:
    hosts: kvm_hosts
    include: [tenant1-*]
    exclude: []
    serial: ["100%"]
"""

import os
import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_knobs import read_knobs


def fleet_knobs(given: t.Mapping[str, t.Any], variables: t.Sequence[str] = ()) -> dict[str, t.Any]:
    try:
        return read_knobs(given, os.getcwd(), variables).as_dict()
    except VmfleetError as exc:
        raise AnsibleFilterError(exc.message) from exc


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_knobs": fleet_knobs}
