#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_guest_info
short_description: Tell which guests a host has and where its suspend stands
version_added: 1.0.0
description:
  - Lists the guests behind monitors and the running domains of libvirt, with what each one's image
    would take at most and whether it can be saved.
  - Tells how far the last suspend of this host is, and what runs that died left in the store.
  - Each monitor is held for one look. The QEMU of a domain is asked through libvirt, which marks
    the domain as tainted for it (C(custom-monitor)).
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._attributes.info_module
options:
  qmp_sockets:
    description:
      - Shell patterns of monitors, QMP UNIX sockets.
    type: list
    elements: str
    default: []
  uri:
    description: A libvirt daemon on this host. Left out, libvirt is not asked.
    type: str
  store:
    description: Directory of images that is looked through for leftovers.
    type: path
    default: /var/lib/vmfleet/images
  journal:
    description: Directory of journals.
    type: path
    default: /var/lib/vmfleet/journal
requirements:
  - Python >= 3.8
  - qemu.qmp >= 0.0.3 (Python library, on the managed host), with O(qmp_sockets)
  - libvirt-python (Python library, on the managed host), with O(uri)
seealso:
  - module: vmfleet.suspend.qemu_host_suspend
  - module: vmfleet.suspend.qemu_saveimage_info
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: Look at a host
  vmfleet.suspend.qemu_guest_info:
    qmp_sockets: [/run/qemu/*.qmp]
    uri: qemu:///system
  register: host

- name: Name the guests that cannot be saved
  ansible.builtin.debug:
    msg: "{{ host.guests | rejectattr('can_save') | items2dict('name', 'cannot_save_reason') }}"

- name: Learn where the suspend of this host stands
  vmfleet.suspend.qemu_guest_info:
  register: host
"""

RETURN = r"""
guests:
  description: The guests that were found, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name; the path of its monitor where QEMU was given none.
      type: str
      returned: always
      sample: web01
    uuid:
      description: UUID, null for a guest without one.
      type: str
      returned: always
      sample: 6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77
    qmp_socket:
      description: Its monitor.
      type: str
      returned: for guests behind a monitor
      sample: /run/qemu/web01.qmp
    uri:
      description: Its daemon.
      type: str
      returned: for guests of libvirt
      sample: qemu:///system
    domain:
      description: Its name there.
      type: str
      returned: for guests of libvirt
      sample: web02
    state:
      description: QEMU's run state; with libvirt, a state as C(virsh domstate) shows it.
      type: str
      returned: always
      sample: running
    pid:
      description: Process id of its QEMU, null where that cannot be seen.
      type: int
      returned: always
      sample: 4711
    memory_bytes:
      description: Its RAM.
      type: int
      returned: always
      sample: 1073741824
    resident_bytes:
      description: How much of its RAM is in the host's memory or swapped out; null where that
        cannot be seen.
      type: int
      returned: always
      sample: 545308984
    estimated_bytes:
      description: What its image would occupy at most, by that; null where it cannot be seen.
      type: int
      returned: always
      sample: 562086200
    disks:
      description: Files, devices and addresses behind its disks, secrets replaced.
      type: list
      elements: str
      returned: always
      sample: [/var/lib/libvirt/images/web01.qcow2]
    migration_blockers:
      description: QEMU's own words against saving it.
      type: list
      elements: str
      returned: always
      sample: []
    can_save:
      description: Whether nothing is in the way of saving it now.
      type: bool
      returned: always
      sample: true
    cannot_save_reason:
      description: What is in the way, null where nothing is.
      type: str
      returned: always
      sample: null
    systemd_unit:
      description: The service that runs it, null without one.
      type: str
      returned: always
      sample: web01.service
    autostart:
      description: Whether libvirt starts it with the host; null for guests behind a monitor.
      type: bool
      returned: always
      sample: null
    persistent:
      description: Whether libvirt knows it when it does not run; null for guests behind a monitor.
      type: bool
      returned: always
      sample: null
unanswered:
  description: Sockets behind which a guest may be, and why nobody knows.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The socket.
      type: str
      returned: always
      sample: /run/qemu/old.qmp
    reason:
      description: Why it told nothing.
      type: str
      returned: always
      sample: Nothing listens on the monitor socket /run/qemu/old.qmp (Connection refused).
leftovers:
  description: What lies in O(store) beside images that may be restored.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
      returned: always
      sample: /var/lib/vmfleet/images/.web01.save.partial
    kind:
      description: V(unfinished), or V(stale) for a ready image whose guest runs.
      type: str
      returned: always
      sample: unfinished
    what:
      description: What it is and what to do.
      type: str
      returned: always
      sample: a run that died left it; the same save finishes or undoes it
    name:
      description: Its guest's name, null where the file does not tell.
      type: str
      returned: always
      sample: web01
    uuid:
      description: Its guest's UUID, null where the file does not tell.
      type: str
      returned: always
      sample: 6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77
    held_by_pid:
      description: The run that has it locked, null where none has.
      type: int
      returned: always
      sample: null
journal:
  description:
    - The newest journal of O(store), null without one. C(closed) is null as long as there is
      something to resume.
  returned: success
  type: dict
  sample:
    id: 20261124T013000Z-1a2b3c4d
    closed: null
    states:
      verified: 8
unreadable_journals:
  description: Journals that cannot be read, and why.
  returned: success
  type: list
  elements: dict
  sample: []
"""

import asyncio
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmfleet.suspend.plugins.module_utils._ansible import (
    fail,
    require_absolute,
    require_libvirt,
    require_qmp,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._discovery import discover
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    read_journals,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._leftovers import leftovers
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import JOURNAL, STORE


async def look(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What the module returns."""
    require_absolute(store=params["store"], journal=params["journal"])
    found = await discover(params["qmp_sockets"], params["uri"])
    journals = read_journals(params["journal"])
    store = os.path.normpath(params["store"])
    own = [one for one in journals.journals if one.store == store]
    return {
        "guests": [guest.as_dict() for guest in found.guests],
        "unanswered": [{"path": one.path, "reason": one.reason} for one in found.unanswered],
        "leftovers": leftovers(store, found.guests),
        "journal": own[0].as_dict() if own else None,
        "unreadable_journals": [{"path": path, "reason": why} for path, why in journals.unreadable],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            qmp_sockets=dict(type="list", elements="str", default=[]),
            uri=dict(type="str"),
            store=dict(type="path", default=STORE),
            journal=dict(type="path", default=JOURNAL),
        ),
        supports_check_mode=True,
    )
    if module.params["qmp_sockets"]:
        require_qmp(module)
    if module.params["uri"] is not None:
        require_libvirt(module)
    try:
        result = asyncio.run(look(module.params))
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
