# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: own_guest_uuids
short_description: Say which UUIDs the guest has that has this DMI product UUID
version_added: 1.0.0
description:
  - What the collection's own playbooks use to never suspend the guest that they run in.
author:
  - The vmfleet.suspend authors (@vmfleet)
options:
  _input:
    description: What C(/sys/class/dmi/id/product_uuid) holds.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Never suspend the guest that this controller runs in
  ansible.builtin.set_fact:
    protected: "{{ product_uuid | vmfleet.suspend.own_guest_uuids }}"
"""

RETURN = r"""
_value:
  description: UUIDs in both byte orders; none where the text is no UUID.
  type: list
  elements: str
  sample: [6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77, 7e1c3c6f-402a-3f4d-9d0a-3e5b0c1f8a77]
"""

import typing as t

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._own_guest import uuids_of


def own_guest_uuids(product_uuid: str) -> list[str]:
    return list(uuids_of(product_uuid))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"own_guest_uuids": own_guest_uuids}
