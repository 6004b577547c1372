# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_page
short_description: Show what a run of a fleet's playbook did
version_added: 1.0.0
description:
  - One HTML page that needs nothing but itself. It runs no script and loads nothing.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: The report, as P(vmfleet.suspend.fleet_report#filter) returns it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ report | vmfleet.suspend.fleet_page }}"
    dest: /srv/reports/suspend.html
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

import typing as t

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_page import render_page


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fleet_page": render_page}
