#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_host_suspend
short_description: Suspend all guests of a host to disk, within a window
version_added: 1.0.0
description:
  - Finds the guests of this host, plans the save of each, and saves them at the same time, as many
    as host and stores bear, in the order that their priorities and dependencies give.
  - Everything that can be refused is refused before the first guest is touched. Check mode returns
    the very plan, from the same look at the host, and writes nothing.
  - The host itself keeps a journal, so that whatever dies on the way, a second run goes on where
    it stands, and M(vmfleet.suspend.qemu_host_resume) brings back what was saved.
  - Whatever goes wrong with one guest, that guest runs on.
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._host
  - vmfleet.suspend._progress
options:
  qmp_sockets:
    description:
      - Shell patterns of the guests' monitors, QMP UNIX sockets. One of it and O(uri) is needed.
    type: list
    elements: str
    default: []
  uri:
    description: The libvirt daemon whose running domains are guests of this host, on this host.
    type: str
  window_seconds:
    description:
      - How long the suspend may take. What does not fit, by how fast earlier saves into the same
        store were, is named, and its C(policy) says what happens to it. A save that is under way
        when the window ends is cancelled, and its guest runs on, unless its policy is V(save).
      - Nothing can be foretold of a store that was never used; then a guest is not begun any more
        once the window is over.
    type: int
  hold_until:
    description:
      - When guests may be resumed by the host itself, in ISO 8601 with its offset. It is kept in
        the journal; M(vmfleet.suspend.qemu_host_resume) does not wait for it.
    type: str
  on_failure:
    description:
      - What a failure of one guest means for the others. V(continue) saves them; V(rollback) begins
        no further and brings back those that were saved.
    type: str
    choices: [continue, rollback]
    default: continue
  competing:
    description:
      - What is done about those who would start or stop guests behind our back. C(libvirt-guests),
        systemd units that start a guest by themselves or again, agents of high availability.
        RV(ignore:plan.competing) names each and says what it would do.
      - V(refuse) begins nothing while there is one.
      - V(disable) keeps those that can be kept from it, notes that in the journal, and
        M(vmfleet.suspend.qemu_host_resume) undoes it. A guest's own unit with C(Restart=), or one
        that the boot starts, is stopped in place of QEMU, and the guest comes back in it. Agents of
        high availability belong to their cluster and are always refused, unless they are seen to
        hold still.
      - The autostart of a libvirt domain is always switched off with its save and on again with its
        restore.
    type: str
    choices: [refuse, disable]
    default: refuse
  image_version:
    description: See O(vmfleet.suspend.qemu_save#module:image_version).
    type: int
    choices: [2, 3]
  image_format:
    description: See O(vmfleet.suspend.qemu_save#module:image_format).
    type: str
    choices: [raw, gzip, bzip2, xz, lzop, zstd, sparse]
  qemu_conf:
    description: The host's qemu.conf, for its save settings.
    type: path
    default: /etc/libvirt/qemu.conf
seealso:
  - module: vmfleet.suspend.qemu_host_resume
  - module: vmfleet.suspend.qemu_save
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: See what a suspend of this host would do, and how long it would take
  vmfleet.suspend.qemu_host_suspend:
    qmp_sockets: [/run/qemu/*.qmp]
    window_seconds: 600
  check_mode: true
  register: plan

- name: Suspend all guests of this host, the databases last
  vmfleet.suspend.qemu_host_suspend:
    qmp_sockets: [/run/qemu/*.qmp]
    uri: qemu:///system
    exclude: [controller*]
    window_seconds: 600
    guests:
      - name: db01
        priority: 10
      - name: web01
        depends_on: [db01]
      - name: scratch01
        policy: shutdown

- name: Suspend three members of one cluster so that none sees the others gone
  vmfleet.suspend.qemu_host_suspend:
    uri: qemu:///system
    include: [etcd*]
    on_failure: rollback
    guests:
      - {name: etcd1, group: etcd}
      - {name: etcd2, group: etcd}
      - {name: etcd3, group: etcd}
"""

RETURN = r"""
plan:
  description:
    - What was to be done to each guest and why, in order, with the stores, the limits, who competes
      and what is in the way. The same in check mode and in a run; also returned by a refusal.
  returned: always
  type: dict
  sample:
    guests:
      - name: web01
        action: save
        reason: it is running
        tier: 0
        at_most_bytes: 1090519040
        predicted_seconds: 0.9
        path: /var/lib/vmfleet/images/web01-6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77.save
        image_version: 3
        parallel_channels: 2
    max_concurrent: 2
    window_seconds: 600
    predicted_seconds: 12.1
    stores:
      - path: /var/lib/vmfleet/images
        free_bytes: 107374182400
        needed_bytes: 1090519040
        measured_bytes_per_second: 605980444
    competing: []
    problems: []
    not_here: []
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
    require_libvirt,
    require_qmp,
    told,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    SUSPEND_ARGUMENTS,
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import (
    interruptible,
)

ARGUMENTS = dict(SUSPEND_ARGUMENTS, **PROGRESS_ARGUMENTS)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if module.params["qmp_sockets"]:
        require_qmp(module)
    if module.params["uri"] is not None:
        require_libvirt(module)
    try:
        request = suspend_request(module.params)
        with told(module):
            work = in_turn(
                module, lambda: suspend(request, check_mode=module.check_mode), request.store
            )
            outcome = asyncio.run(interruptible(work))
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.as_result())


if __name__ == "__main__":
    main()
