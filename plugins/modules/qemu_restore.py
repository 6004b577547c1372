#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_restore
short_description: Bring a QEMU guest back from a save image
version_added: 1.0.0
description:
  - Loads a save image into a QEMU that waits with C(-incoming defer), or into one that this module
    starts, and lets the guest run as it ran when it was saved.
  - An image of M(vmfleet.suspend.qemu_save) carries how its QEMU was run, so that O(path) alone
    brings a guest back on the host that it was saved on. See the notes on what is trusted.
  - Whatever would corrupt the guest or its disks is refused before anything is loaded. Its old QEMU
    must be gone and its sockets, ports and pidfile free. Its disks must be as they were. Machine
    type, UUID, vCPUs, devices, block chains and RAM blocks of the waiting QEMU must be those of the
    guest, because QEMU itself would accept some differences.
  - The image is marked spent before the first instruction runs. A spent image is refused by this
    collection and by C(virsh), since its guest's disks have moved on.
  - Where an earlier run died on the way, this one finds what it left in QEMU, and finishes or
    undoes it first. RV(plan.recovers) and RV(actions) say so.
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._transfer
  - vmfleet.suspend._progress
attributes:
  idempotent:
    support: partial
    details:
      - A second run finds the guest that was restored from this image and changes nothing. With
        O(remove_image) the image that proves it is gone, and a second run fails.
      - With O(domain), nothing is changed only if the domain of the image's UUID runs and the image
        is spent. A domain that runs although the image is ready was started from elsewhere, which
        is an error, since the image is stale then.
      - With O(managed), nothing is changed if the domain runs and libvirt holds no managed save.
options:
  path:
    description: The image, an absolute path on the host. Needed but with O(managed).
    type: path
  qmp_socket:
    description:
      - Where a QEMU waits, or where the one that is started will listen.
      - Left out, the monitor that the guest was saved from.
    type: path
  managed:
    description:
      - Bring O(domain) back from libvirt's managed save, which libvirt removes then.
      - Refused where there is none, since libvirt would boot the domain afresh, and for a file that
        is not a whole image of the domain, which libvirt would throw away for a fresh boot.
    type: bool
    default: false
  argv:
    description:
      - The QEMU to start, program and arguments as a list, never run through a shell. It runs as
        the user of this module.
      - Left out, and where no QEMU waits on O(qmp_socket), the recorded command line is run again
        as it was run, with its user, groups, directory, limits, umask and environment.
      - C(-incoming defer -S) is added; C(-daemonize), C(-loadvm) and an C(-incoming) or C(-S) of
        its own are dropped; C(-qmp) is added where no monitor listens on O(qmp_socket). A recorded
        command line also gets its machine type pinned, and sockets that would block get
        C(wait=off). RV(actions) names each change.
      - Needed where the recorded command line cannot be used again, because QEMU was handed open
        file descriptors by another program.
      - Devices, RAM, disks and machine type must be those of the saved guest.
    type: list
    elements: str
  trust_recorded_argv:
    description:
      - Run a recorded command line, or use a recorded monitor, even though somebody else could have
        written it, because the image or a directory on the way to it does not belong to root or to
        the user of this module, or others may write there.
    type: bool
    default: false
  systemd_unit:
    description:
      - The systemd unit that runs the guest. It is started with the waiting QEMU in place of its
        own C(ExecStart=), and is as before once the guest is loaded.
      - Left out, the unit that M(vmfleet.suspend.qemu_save) was told, if any. An empty string
        starts QEMU outside of that unit.
    type: str
  reset_shared_memory:
    description:
      - Empty the files behind the guest's RAM (C(memory-backend-file), C(-mem-path)) before the
        load, once the QEMU was found to be the guest's. Files of backends that are no RAM, such as
        the disk of a virtio-pmem device, are left alone.
      - Where files hold data of an earlier run, the restore is refused without this.
      - Refused while another process has such a file open.
    type: bool
    default: false
  load:
    description:
      - How the guest's RAM comes from the image. V(eager) reads all of it before the guest runs.
      - V(lazy) makes the RAM of the new QEMU a private mapping of the image, so that the guest runs
        at once, whatever its size. A page is read when the guest touches it and copied when the
        guest writes it. The image itself never changes, and stays the guest's RAM until the guest
        has overwritten all of it or ends.
      - This module must start QEMU for that. Refused, with the reason, for images that are
        sequential or compressed, for RAM that is shared, preallocated, in files or in huge pages,
        for devices that pin RAM or share it with another process, for a QEMU that cannot map it
        so, and where the store is a network or removable one.
      - Before the guest runs, sampled pages of its memory are compared with the image.
      - Once the guest runs, the spent image is made immutable (C(chattr +i)), since writing into it
        or truncating it would damage the guest. The next M(vmfleet.suspend.qemu_save) to that path
        replaces it all the same. With O(remove_image) it loses its name instead.
      - O(bypass_cache) does not go with it, and O(parallel_channels) has no effect.
    type: str
    choices: [eager, lazy]
    default: eager
  prefetch:
    description:
      - With O(load=lazy), how the rest of the image is read into the page cache once the guest
        runs. It ends early where the host runs short of memory or the guest ends.
      - V(background) leaves a reader behind that takes at most half of the store's time and ends by
        itself, after an hour at the latest. V(full) waits until all is read. V(none) leaves it to
        the guest's own faults.
    type: str
    choices: [none, background, full]
    default: background
  rehearse:
    description:
      - Load the image into a throw-away QEMU, with temporary overlays instead of its disks, without
        a network, without ever running its vCPUs, and end it. Proves that this host's QEMU takes
        the image. Image, disks and guest stay as they are; nothing is reported as changed.
      - RAM is read for it, whatever O(load) says; what would keep RAM from being mapped is refused.
    type: bool
    default: false
  run_state:
    description:
      - Whether the guest runs afterwards. V(as_saved) lets it run if it ran when it was saved.
      - With V(paused) the image stays ready. A later run with V(running) marks it spent and
        continues the guest.
    type: str
    choices: [as_saved, running, paused]
    default: as_saved
  allow:
    description:
      - Refusals to override, by name.
      - V(spent) restores an image whose guest has run since. It corrupts the guest's disks unless
        they were rolled back to the moment of the save as well.
      - V(changed_disks) restores although files or devices behind the disks, or the block chains,
        are not as they were. It corrupts the guest's disks unless their content is the same, as
        that of a faithful copy.
      - V(other_machine) restores an image that was saved on another host, where nobody can see from
        here whether its QEMU still runs. Two running copies corrupt the disks that they share.
      - V(unsteady_store) maps RAM (O(load=lazy)) from an image on a network filesystem or removable
        disk. The guest hangs while the store does not answer, and is killed when it is gone.
    type: list
    elements: str
    choices: [changed_disks, other_machine, spent, unsteady_store]
    default: []
  remove_image:
    description: Remove the image once the guest runs.
    type: bool
    default: false
  sync_clock:
    description:
      - Whether the guest's clock is set through its agent once it runs. It stood still since the
        save. A clock that is right to a tenth of a second is left alone.
      - A guest without an agent keeps its clock. Nothing about it fails the restore;
        RV(ignore:clock) tells.
    type: bool
    default: true
  ready_check:
    description:
      - What is waited for once the guest runs. A guest that is not ready in time is a warning, and
        RV(ignore:ready) tells.
    type: dict
    suboptions:
      tcp:
        description: C(HOST:PORT) that shall accept a connection from the host.
        type: str
      agent:
        description: Whether the guest's agent shall answer.
        type: bool
        default: false
      timeout:
        description: Seconds that are waited at most.
        type: int
        default: 60
notes:
  - An image's recorded command line is code. It is run only if the image and every directory on the
    way to it belong to root or to the user of this module and nobody else may write there (a sticky
    directory is fine for entries that belong so); else set O(trust_recorded_argv). It runs with the
    credentials that QEMU had, never as root if the guest was not.
  - With O(domain), libvirt loads the image with the vCPUs held; the image is marked spent, and only
    then the domain is resumed. Where M(vmfleet.suspend.qemu_save) had switched its autostart off,
    that is on again afterwards.
  - C(virsh save-image-define) wipes the record; such an image needs O(argv) or a waiting QEMU.
  - Passwords in a command line never appear in results, logs or diffs.
seealso:
  - module: vmfleet.suspend.qemu_save
  - module: vmfleet.suspend.qemu_saveimage_info
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: Bring a guest back on the host that it was saved on
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/web01.save

- name: Prove that this host's QEMU would take it
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/web01.save
    rehearse: true

- name: Let a large guest run at once, its RAM mapped from the image
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/db01.save
    load: lazy

- name: Restore into a QEMU that waits on its monitor
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/web01.save
    qmp_socket: /run/qemu/web01.qmp

- name: Bring a domain of libvirt back
  vmfleet.suspend.qemu_restore:
    domain: web02
    path: /var/lib/vmfleet/images/web02.save

- name: Bring a domain back that libvirt holds in a managed save
  vmfleet.suspend.qemu_restore:
    domain: web03
    managed: true

- name: Start QEMU and restore into it, reading over four channels past the page cache
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/db01.save
    qmp_socket: /run/qemu/db01.qmp
    argv:
      - qemu-system-x86_64
      - -machine
      - pc-q35-10.0,accel=kvm
      - -m
      - "4096"
      - -drive
      - file=/srv/disks/db01.qcow2,if=virtio
      - -display
      - none
    parallel_channels: 4
    bypass_cache: true

- name: See whether the image could be restored, without starting anything
  vmfleet.suspend.qemu_restore:
    path: /var/lib/vmfleet/images/web01.save
  check_mode: true
"""

RETURN = r"""
reason:
  description: Why something was done or not done.
  returned: success
  type: str
  sample: the image is ready and a QEMU waits for it
actions:
  description: What was done, in order. Also returned by a failed run.
  returned: always
  type: list
  elements: str
  sample:
    - started QEMU (pid 4712)
    - loaded the guest's state
    - marked the image spent
    - continued the guest
guest:
  description: The guest, with its state now.
  returned: always
  type: dict
  contains:
    name:
      description: Name in the image.
      type: str
      returned: always
      sample: web01
    uuid:
      description: UUID in the image, null where it has none.
      type: str
      returned: always
      sample: 6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77
    pid:
      description: Process id of its QEMU, null when there is none or it cannot be seen.
      type: int
      returned: success
      sample: 4712
    state:
      description:
        - Run state now, V(absent) when no guest was brought back, V(unknown) when that cannot be
          told.
      type: str
      returned: always
      sample: running
image:
  description: The image.
  returned: always
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/vmfleet/images/web01.save
    state:
      description: V(ready), V(spent) or V(removed).
      type: str
      returned: always
      sample: spent
    version:
      description: Header version.
      type: int
      returned: success
      sample: 3
    image_format:
      description: Format as the header names it.
      type: str
      returned: success
      sample: raw
    layout:
      description: V(mapped-ram) or V(sequential), as found in the stream.
      type: str
      returned: success
      sample: mapped-ram
    apparent_bytes:
      description: File size; holes count.
      type: int
      returned: success
      sample: 1082349834
    allocated_bytes:
      description: Bytes that the file occupies on its store.
      type: int
      returned: success
      sample: 545382400
    ram_bytes:
      description: Bytes of all RAM blocks.
      type: int
      returned: success
      sample: 1074204672
    present_pages:
      description: Pages in the image; null for a sequential layout.
      type: int
      returned: success
      sample: 132880
    zero_pages:
      description: Pages that are zero; null for a sequential layout.
      type: int
      returned: success
      sample: 129378
prefetch:
  description: How the mapped image was read ahead of the guest.
  returned: with O(load=lazy), unless O(prefetch=none)
  type: dict
  contains:
    waited_for:
      description: Whether this run waited for the end.
      type: bool
      returned: always
      sample: true
    total_bytes:
      description: Bytes of data in the mapped RAM blocks of the image.
      type: int
      returned: always
      sample: 536870912
    read_bytes:
      description: Bytes that were read; null where nobody waited.
      type: int
      returned: always
      sample: 536870912
    seconds:
      description: How long that took; null where nobody waited.
      type: float
      returned: always
      sample: 0.38
    ended:
      description:
        - V(complete), or why it ended before, such as V(memory is short); null where nobody waited.
      type: str
      returned: always
      sample: complete
migration:
  description: How long the load took.
  returned: when something was loaded
  type: dict
  contains:
    total_seconds:
      description: Seconds from the command to QEMU's end of the load.
      type: float
      returned: always
      sample: 0.42
negotiated:
  description: What was asked of QEMU and set.
  returned: when a QEMU waited
  type: dict
  sample:
    bypass_cache: true
    capabilities_on: [events, mapped-ram, multifd]
    parallel_channels: 4
plan:
  description:
    - What was decided, and why. In check mode, the result; V(unknown) is what only a QEMU could
      tell while none waits on O(qmp_socket).
  returned: success
  type: dict
  sample:
    action: restore
    layout: mapped-ram
    load: eager
    mapped_bytes: 0
    prefetch: null
    parallel_channels: 4
    run_afterwards: true
    start_qemu: true
    launch: recorded
    checks:
      source_gone: "yes"
      disks_unchanged: "yes"
      recorded_argv_trusted: "yes"
      program_runs: "yes"
      addresses_free: "yes"
      servers_answer: "yes"
      memory_empty: "yes"
    same_guest: "yes"
    recovers: null
  contains:
    load:
      description: V(lazy) where RAM is mapped from the image, else V(eager).
      type: str
      returned: always
    mapped_bytes:
      description: Bytes of RAM that are mapped from the image and not read.
      type: int
      returned: always
    prefetch:
      description: As O(prefetch), null unless RAM is mapped.
      type: str
      returned: always
    launch:
      description:
        - Whose command line a QEMU is started with, V(recorded), V(given) or V(libvirt); null where
          one is there.
      type: str
      returned: always
    checks:
      description:
        - What image and host alone can tell. V(yes), V(allowed) (it is not so, and an option
          accepted that), or V(unknown) (not recorded, or seen from another host). A check that
          fails refuses the restore.
        - C(source_gone) is whether the QEMU that the guest was saved from has ended,
          C(disks_unchanged) whether its disks are as they were. The others are asked where a QEMU
          is to be started; C(addresses_free) is about sockets, ports and pidfile, C(servers_answer)
          about the sockets that it is a client of, C(memory_empty) about files behind its RAM.
        - With O(load=lazy), C(store_steady) is whether the image's store stays, C(image_mappable)
          whether every page that the guest has as zero is zero in the file, C(image_readable)
          whether the user that QEMU runs as can open the image.
      type: dict
      returned: always
    same_guest:
      description:
        - V(yes) once the waiting QEMU was compared with the guest, V(unknown) before.
      type: str
      returned: always
    recovers:
      description:
        - What a restore that died left in QEMU, and what is done about it first; null when there is
          nothing.
        - C(remedy) is V(tidy) (QEMU was prepared, nothing loaded), V(wait) (it still loads),
          V(finish) (it has loaded the guest) or V(end) (its load failed; this module started it,
          and starts another).
      type: dict
      returned: always
    image_label:
      description:
        - The SELinux label that the image has while QEMU uses it; see the page about who may read
          an image.
      type: str
      returned: where SELinux confines QEMU
announced:
  description:
    - Whether QEMU was told to have the guest's network cards announce themselves once more, now
      that its vCPUs run. Null for domains of libvirt.
  returned: when the guest runs by this run
  type: bool
  sample: true
clock:
  description: The guest's clock, null with O(sync_clock=false).
  returned: when the guest runs by this run
  type: dict
  sample:
    agent: answered
    skew_before_seconds: -3612.4
    skew_after_seconds: 0.003
    error: null
  contains:
    agent:
      description:
        - V(answered), V(absent) (the guest has none), V(silent) (it does not answer), V(held)
          (another client has its socket), V(refused), or V(unknown).
      type: str
      returned: always
    skew_before_seconds:
      description: The guest's clock minus the host's, null where it could not be read.
      type: float
      returned: always
    skew_after_seconds:
      description: The same afterwards.
      type: float
      returned: always
    error:
      description: What the agent said.
      type: str
      returned: always
ready:
  description: What came of O(ready_check).
  returned: when the guest runs by this run, with O(ready_check)
  type: dict
  sample:
    ready: true
    seconds: 1.2
    reason: null
duration_seconds:
  description: Seconds of the whole run.
  returned: success
  type: float
  sample: 0.61
"""

import asyncio
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmfleet.suspend.plugins.module_utils._ansible import (
    DOMAIN_ARGUMENTS,
    PROGRESS_ARGUMENTS,
    REQUIRED_IF,
    TRANSFER_ARGUMENTS,
    fail,
    in_turn,
    refuse_with_domain,
    refuse_with_managed,
    require_absolute,
    require_libvirt,
    require_path,
    require_qmp,
    require_timeout,
    told,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import (
    interruptible,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._secrets import secrets_in
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._afterwards import (
    READY_CHECK,
    wanted_of,
    with_presence,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_request import (
    DomainRestoreRequest,
    ManagedRestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_run import (
    restore_domain,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._managed_run import (
    restore_managed,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._outcome import (
    RestoreOutcome,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._run import restore

# Options that do not go with domain, each with its value when left out.
NOT_WITH_DOMAIN: dict[str, object] = {
    "argv": None,
    "trust_recorded_argv": False,
    "systemd_unit": None,
    "reset_shared_memory": False,
    "load": "eager",
    "rehearse": False,
}


def argument_spec() -> dict[str, t.Any]:
    """The options as documented above."""
    return dict(
        TRANSFER_ARGUMENTS,
        **DOMAIN_ARGUMENTS,
        **PROGRESS_ARGUMENTS,
        path=dict(type="path"),
        qmp_socket=dict(type="path"),
        managed=dict(type="bool", default=False),
        argv=dict(type="list", elements="str"),
        trust_recorded_argv=dict(type="bool", default=False),
        systemd_unit=dict(type="str"),
        sync_clock=dict(type="bool", default=True),
        ready_check=READY_CHECK,
        reset_shared_memory=dict(type="bool", default=False),
        load=dict(type="str", choices=["eager", "lazy"], default="eager"),
        prefetch=dict(type="str", choices=["none", "background", "full"], default="background"),
        rehearse=dict(type="bool", default=False),
        run_state=dict(type="str", choices=["as_saved", "running", "paused"], default="as_saved"),
        allow=dict(
            type="list",
            elements="str",
            choices=["changed_disks", "other_machine", "spent", "unsteady_store"],
            default=[],
        ),
        remove_image=dict(type="bool", default=False),
    )


def request_from(params: t.Mapping[str, t.Any]) -> RestoreRequest:
    """Options to request; raises `Refused` for what an argument spec cannot express."""
    require_timeout(params["timeout"])
    require_path(params["path"])
    require_absolute(path=params["path"], qmp_socket=params["qmp_socket"])
    return RestoreRequest(
        path=params["path"],
        qmp_socket=params["qmp_socket"],
        argv=tuple(params["argv"]) if params["argv"] is not None else None,
        parallel_channels=params["parallel_channels"],
        bypass_cache=params["bypass_cache"],
        run_state=params["run_state"],
        allow=frozenset(params["allow"]),
        remove_image=params["remove_image"],
        load=params["load"],
        prefetch=params["prefetch"],
        rehearse=params["rehearse"],
        trust_recorded_argv=params["trust_recorded_argv"],
        reset_shared_memory=params["reset_shared_memory"],
        systemd_unit=params["systemd_unit"],
        timeout_seconds=params["timeout"],
    )


def domain_request_from(params: t.Mapping[str, t.Any]) -> DomainRestoreRequest:
    """As `request_from`, for a domain of libvirt."""
    require_timeout(params["timeout"])
    require_path(params["path"])
    require_absolute(path=params["path"])
    refuse_with_domain(params, **NOT_WITH_DOMAIN)
    return DomainRestoreRequest(
        path=params["path"],
        domain=params["domain"],
        uri=params["uri"],
        parallel_channels=params["parallel_channels"],
        bypass_cache=params["bypass_cache"],
        run_state=params["run_state"],
        allow=frozenset(params["allow"]),
        remove_image=params["remove_image"],
        timeout_seconds=params["timeout"],
    )


def managed_request_from(params: t.Mapping[str, t.Any]) -> ManagedRestoreRequest:
    """As `request_from`, for a managed save."""
    refuse_with_domain(params, **NOT_WITH_DOMAIN)
    refuse_with_managed(
        params, path=None, parallel_channels=None, allow=[], remove_image=False, timeout=0
    )
    return ManagedRestoreRequest(
        domain=params["domain"],
        uri=params["uri"],
        bypass_cache=params["bypass_cache"],
        run_state=params["run_state"],
    )


async def run(params: t.Mapping[str, t.Any], *, check_mode: bool) -> RestoreOutcome:
    """Restore as the options say, and look after the guest once it runs."""
    wanted = wanted_of(params["sync_clock"], params["ready_check"])
    outcome = await _restore(params, check_mode=check_mode)
    if check_mode or params["rehearse"]:
        return outcome
    uri = params["uri"] if params["domain"] is not None else None
    return await with_presence(outcome, wanted, uri=uri, domain=params["domain"])


async def _restore(params: t.Mapping[str, t.Any], *, check_mode: bool) -> RestoreOutcome:
    if params["managed"]:
        return await restore_managed(managed_request_from(params), check_mode=check_mode)
    if params["domain"] is not None:
        return await restore_domain(domain_request_from(params), check_mode=check_mode)
    return await restore(request_from(params), check_mode=check_mode)


def main() -> None:
    # argv may hold passwords: it is kept out of the host's log, and they out of what is returned.
    module = AnsibleModule(
        argument_spec=argument_spec(),
        supports_check_mode=True,
        no_log=True,
        mutually_exclusive=[("qmp_socket", "domain")],
        required_if=REQUIRED_IF,
    )
    module.no_log_values.update(secrets_in(module.params["argv"] or ()))
    (require_qmp if module.params["domain"] is None else require_libvirt)(module)
    try:
        with told(module):
            subject = module.params["domain"] or module.params["path"]
            work = in_turn(
                module, lambda: run(module.params, check_mode=module.check_mode), subject
            )
            outcome = asyncio.run(interruptible(work))
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    presence = outcome.presence.warnings if outcome.presence is not None else ()
    for warning in (*outcome.plan.warnings, *presence):
        module.warn(warning)
    module.exit_json(**outcome.as_result())


if __name__ == "__main__":
    main()
