#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_host_resume
short_description: Bring back all guests that a suspend of this host saved
version_added: 1.0.0
description:
  - Reads the journal that M(vmfleet.suspend.qemu_host_suspend) keeps on the host, and brings back
    each guest that was saved, whatever happened in between. A reboot, a module that was killed, a
    controller that is gone.
  - Guests come back in the opposite order, several at the same time; those of one group are all
    restored before the first of them runs.
  - No guest is started twice, and none is booted afresh. A guest whose QEMU ended before its image
    was whole is named, with an older image of it that is stale, and left alone.
  - When all are back, what was switched off for the while is switched on again, and the journal is
    closed.
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._host
  - vmfleet.suspend._progress
options:
  load:
    description: See O(vmfleet.suspend.qemu_restore#module:load). Left out, V(eager).
    type: str
    choices: [eager, lazy]
  sync_clock:
    description: See O(vmfleet.suspend.qemu_restore#module:sync_clock).
    type: bool
    default: true
seealso:
  - module: vmfleet.suspend.qemu_host_suspend
  - module: vmfleet.suspend.qemu_restore
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: Bring back every guest that was suspended
  vmfleet.suspend.qemu_host_resume:

- name: Bring back one tenant first, running before its RAM is read
  vmfleet.suspend.qemu_host_resume:
    include: [tenant1-*]
    load: lazy
"""

RETURN = r"""
plan:
  description:
    - What was to be done to each guest and why, in order. The same in check mode and in a run.
  returned: always
  type: dict
  sample:
    guests:
      - name: web01
        action: restore
        reason: the image is ready
        tier: 0
        path: /var/lib/vmfleet/images/web01-6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77.save
    max_concurrent: 2
reason:
  description: Why something was done or not done.
  returned: success
  type: str
  sample: guests run here
actions:
  description: What was done to the host itself, in order; what was done to a guest is told with it.
  returned: always
  type: list
  elements: str
  sample:
    - kept libvirt-guests.service from interfering until the guests are back
guests:
  description: Each guest, those that were left alone too. Also returned by a failed run.
  returned: always
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
    action:
      description: What the plan says; see RV(plan).
      type: str
      returned: always
      sample: save
    reason:
      description: Why.
      type: str
      returned: always
      sample: it is running
    state:
      description:
        - How far it is, in the journal's words. V(planned), V(saving), V(saved) (its image is
          whole), V(verified) (and was walked), V(restoring), V(running) (it is back), V(failed) (it
          runs on and was not saved), V(crashed) (its QEMU ended before its image was whole, and its
          RAM is lost), V(left) and V(shutdown) (by its policy).
      type: str
      returned: always
      sample: verified
    guest_state:
      description:
        - State now. V(stopped), V(absent), V(crashed), V(unknown) or a run state of QEMU; with
          libvirt, a state as C(virsh domstate) shows it.
      type: str
      returned: always
      sample: stopped
    changed:
      description: Whether this run did something to it.
      type: bool
      returned: always
      sample: true
    error:
      description: What went wrong, where that leaves the guest and what to do; null where nothing
        did.
      type: str
      returned: always
      sample: null
    stale_image:
      description: An older image of a guest that was lost, which must not be restored.
      type: str
      returned: always
      sample: null
    image:
      description: Its image, as the modules for single guests return it.
      type: dict
      returned: always
      sample:
        path: /var/lib/vmfleet/images/web01-6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77.save
        state: ready
        version: 3
        image_format: raw
        layout: mapped-ram
    bytes:
      description: Bytes that its image occupies.
      type: int
      returned: always
      sample: 545382400
    predicted_seconds:
      description: How long it was to take; null where nothing was ever saved into that store.
      type: float
      returned: always
      sample: 0.9
    began_seconds:
      description: How long after the beginning of this run its turn came; null where it did not.
      type: float
      returned: always
      sample: 0.31
    actual_seconds:
      description: How long it took.
      type: float
      returned: always
      sample: 0.94
    stopped_seconds:
      description: How long its vCPUs stood still until its QEMU was let go; null where that is not
        known, as with libvirt.
      type: float
      returned: always
      sample: 0.71
    actions:
      description: What was done to it, in order.
      type: list
      elements: str
      returned: always
      sample:
        - stopped the vCPUs
        - quit QEMU
    clock:
      description: See RV(vmfleet.suspend.qemu_restore#module:clock). Null unless it was resumed.
      type: dict
      returned: always
    ready:
      description: See RV(vmfleet.suspend.qemu_restore#module:ready). Null unless it was resumed.
      type: dict
      returned: always
images:
  description: Paths of the images of these guests.
  returned: always
  type: list
  elements: str
  sample:
    - /var/lib/vmfleet/images/web01-6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77.save
journal:
  description:
    - The journal as it is now, null before the first suspend. RV(ignore:journal.closed) is null as
      long as there is something to resume.
  returned: always
  type: dict
  sample:
    id: 20261124T013000Z-1a2b3c4d
    created: '2026-11-24T01:30:00Z'
    store: /var/lib/vmfleet/images
    hold_until: null
    released: false
    closed: null
    states:
      verified: 8
busy:
  description: That another run is at this host, which is why nothing was done.
  returned: when another run is at this host
  type: bool
  sample: true
duration_seconds:
  description: Seconds of the whole run.
  returned: always
  type: float
  sample: 12.4
"""

import asyncio

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmfleet.suspend.plugins.module_utils._ansible import (
    PROGRESS_ARGUMENTS,
    fail,
    in_turn,
    told,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    RESUME_ARGUMENTS,
    resume_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import (
    interruptible,
)

ARGUMENTS = dict(RESUME_ARGUMENTS, **PROGRESS_ARGUMENTS)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        request = resume_request(module.params)
        with told(module):
            work = in_turn(
                module, lambda: resume(request, check_mode=module.check_mode), request.store
            )
            outcome = asyncio.run(interruptible(work))
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.as_result())


if __name__ == "__main__":
    main()
