#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_save
short_description: Save a running QEMU guest to one image file
version_added: 1.0.0
description:
  - Writes the RAM and the devices of a QEMU guest to a save image, verifies the image while QEMU
    still holds the guest, publishes it under its name in one step and only then ends QEMU.
  - RAM is written at fixed offsets (QEMU's C(mapped-ram)) over parallel channels, on request past
    the page cache, so that an image is never larger than the guest's RAM and zero pages are holes.
  - Whatever goes wrong before the image is published, the guest goes on as before and nothing is
    left behind.
  - Where an earlier run died on the way (killed, lost with its connection), this one finds what it
    left in the store and in QEMU, and finishes or undoes it first. RV(plan.recovers) and
    RV(actions) say so.
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._transfer
  - vmfleet.suspend._progress
attributes:
  idempotent:
    support: partial
    details:
      - With O(guest_state=stopped), a second run finds that nothing listens on O(qmp_socket) and
        that the image was saved from it, and changes nothing.
      - O(guest_state=running) takes a new image each time.
      - O(guest_state=paused) changes nothing while QEMU still holds the guest of the image, and
        takes a new one once the guest has run.
      - With O(domain), a second run finds that the domain is not running and that the image at
        O(path) is of it and ready, and changes nothing. With O(managed), that libvirt holds the
        managed save.
options:
  path:
    description:
      - The image to write, an absolute path on the host. The directory must exist.
      - Needed but with O(managed).
      - Without O(overwrite) an older image of the same guest is replaced only when it is spent, or
        when the guest has run since it was taken.
    type: path
  qmp_socket:
    description:
      - The guest's monitor, a QMP UNIX socket. One of it and O(domain) is needed.
    type: path
  managed:
    description:
      - Use libvirt's managed save of O(domain), a file of its own, which the next start of the
        domain restores, whoever starts it, autostart included. C(qemu.conf) alone says its format.
      - For a persistent domain. Does not go with O(path) nor with options that say how the image is
        written, but for O(bypass_cache).
    type: bool
    default: false
  name:
    description:
      - Name of a guest that has none. Must agree with QEMU's name where it has one.
      - Left out, a nameless guest gets the image's file name without its extension.
    type: str
  uuid:
    description:
      - UUID of a guest that has none. Must agree with QEMU's where it has one.
      - An all-zero UUID never identifies a guest.
    type: str
  image_version:
    description:
      - Version of the save image. V(3) is mapped-ram with a feature word. V(2) is libvirt's
        present header; see O(image_format).
      - Left out, C(save_image_version) of O(qemu_conf) decides, else V(3).
      - O(image_format) alone implies V(2).
      - With O(domain), left out, V(2) with format V(sparse), which the daemon that owns the domain
        can read; where libvirt or QEMU lacks that, what C(save_image_format) of O(qemu_conf) says.
        V(3) is then used only if it is asked for here or there. libvirt writes V(sparse), and the
        header is stamped afterwards.
    type: int
    choices: [2, 3]
  image_format:
    description:
      - Format of a version 2 image. V(sparse) is mapped-ram and is read by libvirt 11.2 and later;
        V(raw) is QEMU's plain sequential stream, read by every libvirt; the others are that stream
        through the compressor of that name, which must be installed on the host.
      - With a sequential stream, O(bypass_cache) is done by this module's own aligned pump.
      - Left out with version 2, C(save_image_format) of O(qemu_conf) decides, else V(raw).
      - Refused with O(image_version=3).
    type: str
    choices: [raw, gzip, bzip2, xz, lzop, zstd, sparse]
  max_bandwidth:
    description:
      - Upper bound of the transfer in bytes per second, for example V(200M). Left out, none.
      - QEMU keeps to it per channel, and in steps of about a mebibyte ten times a second, so
        that less than about 10 MiB per second and channel is not kept.
    type: bytes
  guest_state:
    description:
      - What becomes of the guest after its image is ready.
      - V(stopped) quits QEMU.
      - V(paused) leaves it in QEMU's C(postmigrate) with the image ready.
      - V(running) marks the image spent and continues the guest. The image is a copy for
        inspection and cannot be restored.
      - A guest that an earlier save left V(paused) in C(postmigrate) is ended or continued by
        another save to the same O(path), without a new image.
    type: str
    choices: [stopped, paused, running]
    default: stopped
  verify:
    description:
      - What is checked before the guest is let go. V(structure) walks the whole image, sections,
        RAM blocks, page bitmaps, file holes and end marker, and never is called verified content.
      - V(content) also compares every page with the RAM that QEMU still holds. Where that cannot
        be done (sequential layout, no permission to read the process) the result says V(structure).
    type: str
    choices: [structure, content]
    default: structure
  domain_xml_file:
    description:
      - A libvirt domain description to embed. Name, UUID, machine type, RAM, vCPUs and CPU must be
        the guest's, because libvirt would restore it into another machine otherwise.
      - Left out, libvirt's own definition of a guest whose command line libvirt wrote, where it
        still describes the guest; it lies beside O(qemu_conf). C(virsh restore) reads such images
        if they are of version 2.
      - For other guests a minimal one is generated, which libvirt refuses to restore.
        RV(plan.domain_xml) and RV(plan.reasons) say which one it is and why.
    type: path
  allow:
    description:
      - Refusals to override, by name.
      - V(lose_bitmaps) saves although dirty bitmaps that are not persistent will be lost when QEMU
        ends; the next backup of those disks has to be a full one.
    type: list
    elements: str
    choices: [lose_bitmaps]
    default: []
  overwrite:
    description: Replace even another guest's image, or one that is not spent.
    type: bool
    default: false
  systemd_unit:
    description:
      - The systemd unit that runs this guest and nothing else. It is stopped in place of QEMU, so
        that systemd does not start the guest again.
      - Needed where that unit has C(Restart=) set to anything but V(no). It goes into the image,
        and M(vmfleet.suspend.qemu_restore) starts the guest through it.
    type: str
  qemu_conf:
    description:
      - The host's qemu.conf, for its save settings. A missing file means defaults; an unreadable
        one is an error unless O(image_version) or O(image_format) is given.
    type: path
    default: /etc/libvirt/qemu.conf
seealso:
  - module: vmfleet.suspend.qemu_restore
  - module: vmfleet.suspend.qemu_saveimage_info
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: Save a guest and end it
  vmfleet.suspend.qemu_save:
    qmp_socket: /run/qemu/web01.qmp
    path: /var/lib/vmfleet/images/web01.save

- name: Save over four channels past the page cache, in a form that virsh restore reads
  vmfleet.suspend.qemu_save:
    qmp_socket: /run/qemu/db01.qmp
    path: /var/lib/vmfleet/images/db01.save
    image_format: sparse
    parallel_channels: 4
    bypass_cache: true
    timeout: 600

- name: Save a domain of libvirt, by name
  vmfleet.suspend.qemu_save:
    domain: web02
    path: /var/lib/vmfleet/images/web02.save

- name: Save a domain that libvirt shall bring back by itself when the host is up again
  vmfleet.suspend.qemu_save:
    domain: web03
    managed: true

- name: Take a copy for inspection while the guest goes on, every page compared
  vmfleet.suspend.qemu_save:
    qmp_socket: /run/qemu/db01.qmp
    path: /srv/inspect/db01.save
    guest_state: running
    verify: content
    overwrite: true
"""

RETURN = r"""
reason:
  description: Why something was done or not done.
  returned: success
  type: str
  sample: the default
actions:
  description: What was done, in order. Also returned by a failed run.
  returned: always
  type: list
  elements: str
  sample:
    - created /var/lib/vmfleet/images/.web01.save.partial
    - stopped the vCPUs
    - published /var/lib/vmfleet/images/web01.save
    - quit QEMU
guest:
  description: The guest, with its state now.
  returned: always
  type: dict
  contains:
    name:
      description: Name that identifies it in the image.
      type: str
      returned: success
      sample: web01
    uuid:
      description: UUID, null for a guest without one.
      type: str
      returned: success
      sample: 6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77
    pid:
      description: Process id of its QEMU, null when it is gone or cannot be seen.
      type: int
      returned: success
      sample: 4711
    state:
      description:
        - State now. V(stopped), V(absent) (nothing listened), V(crashed), V(unknown) or a run state
          of QEMU; with O(domain), a state as C(virsh domstate) shows it.
      type: str
      returned: always
      sample: stopped
image:
  description: The image as verified.
  returned: success
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
      returned: always
      sample: /var/lib/vmfleet/images/web01.save
    state:
      description: V(ready) or V(spent).
      type: str
      returned: always
      sample: ready
    version:
      description: Header version.
      type: int
      returned: always
      sample: 3
    image_format:
      description: Format as the header names it.
      type: str
      returned: always
      sample: raw
    layout:
      description: V(mapped-ram) or V(sequential).
      type: str
      returned: always
      sample: mapped-ram
    verified:
      description:
        - What was verified, V(structure) or V(content); see RV(image.verified_before_quit).
      type: str
      returned: when saved
      sample: structure
    verified_before_quit:
      description:
        - Whether the guest was still held by QEMU when the image was verified. V(false) with
          O(domain), because libvirt ends QEMU itself.
      type: bool
      returned: when saved
      sample: true
    apparent_bytes:
      description: File size; holes count.
      type: int
      returned: when saved
      sample: 1082349834
    allocated_bytes:
      description: Bytes that the file occupies on its store.
      type: int
      returned: when saved
      sample: 545382400
    ram_bytes:
      description: Bytes of all RAM blocks.
      type: int
      returned: when saved
      sample: 1074204672
    present_pages:
      description: Pages in the image; null for a sequential layout.
      type: int
      returned: when saved
      sample: 132880
    zero_pages:
      description: Pages skipped because they were zero; null for a sequential layout.
      type: int
      returned: when saved
      sample: 129378
migration:
  description: What QEMU moved and how long the guest stood still.
  returned: when saved over QMP
  type: dict
  contains:
    transferred_bytes:
      description: Bytes written.
      type: int
      returned: always
      sample: 545308984
    total_seconds:
      description: Seconds from the command to QEMU's end of the migration.
      type: float
      returned: always
      sample: 0.61
    stopped_seconds:
      description:
        - Seconds from stopping the vCPUs until QEMU was let go, flush and verification included.
        - Of a save that another run began, seconds since this one took over.
      type: float
      returned: always
      sample: 0.94
    throughput_bytes_per_second:
      description: The first divided by the second.
      type: int
      returned: always
      sample: 893949154
negotiated:
  description: What was asked of QEMU and set.
  returned: when saved
  type: dict
  sample:
    bypass_cache: true
    capabilities_on: [events, mapped-ram, multifd]
    parallel_channels: 2
plan:
  description: What was decided before the guest was touched, and why. In check mode, the result.
  returned: when there was a guest to save
  type: dict
  sample:
    action: save
    bypass_cache: true
    bypass_cache_proved: true
    image_version: 3
    layout: mapped-ram
    parallel_channels: 2
    systemd_unit: null
    recovers:
      path: /var/lib/vmfleet/images/.web01.save.partial
      reason: its run died before the image was whole
      remedy: undo
  contains:
    systemd_unit:
      description: The unit that is stopped in place of QEMU, null when QEMU is told to quit.
      type: str
      returned: always
    recovers:
      description:
        - What a run that died left, and what is done about it first; null when there is nothing.
        - C(remedy) is V(remove) (a file that no QEMU needs), V(undo) (guest and QEMU as before,
          then saved anew), V(tidy) (QEMU's settings), V(finish) (what QEMU wrote is verified and
          published), V(publish) (a whole image gets its name), V(leave) (the image is published,
          the guest still to be let go) or V(continue) (the guest of a copy for inspection).
      type: dict
      returned: always
    holds_autostart:
      description: Whether autostart of the domain is switched off until it is restored.
      type: bool
      returned: always
    domain_xml:
      description: Where the embedded domain description comes from; null with O(domain).
      type: str
      returned: always
    reasons:
      description: Why each thing was decided so.
      type: dict
      returned: always
    image_label:
      description:
        - The SELinux label that the image has while QEMU uses it; see the page about who may read
          an image.
      type: str
      returned: where SELinux confines QEMU
duration_seconds:
  description: Seconds of the whole run.
  returned: success
  type: float
  sample: 1.07
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
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_request import (
    DomainSaveRequest,
    ManagedSaveRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_run import save_domain
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._managed_run import (
    save_managed,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._outcome import SaveOutcome
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._run import save

# Options that do not go with domain, each with its value when left out.
NOT_WITH_DOMAIN: dict[str, object] = {
    "name": None,
    "uuid": None,
    "max_bandwidth": None,
    "guest_state": "stopped",
    "verify": "structure",
    "allow": [],
    "systemd_unit": None,
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
        name=dict(type="str"),
        uuid=dict(type="str"),
        image_version=dict(type="int", choices=[2, 3]),
        image_format=dict(
            type="str", choices=["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"]
        ),
        max_bandwidth=dict(type="bytes"),
        guest_state=dict(type="str", choices=["stopped", "paused", "running"], default="stopped"),
        verify=dict(type="str", choices=["structure", "content"], default="structure"),
        domain_xml_file=dict(type="path"),
        allow=dict(type="list", elements="str", choices=["lose_bitmaps"], default=[]),
        overwrite=dict(type="bool", default=False),
        systemd_unit=dict(type="str"),
        qemu_conf=dict(type="path", default="/etc/libvirt/qemu.conf"),
    )


def request_from(params: t.Mapping[str, t.Any]) -> SaveRequest:
    """Options to request; raises `Refused` for what an argument spec cannot express."""
    require_timeout(params["timeout"])
    require_path(params["path"])
    require_absolute(
        **{key: params[key] for key in ("path", "qmp_socket", "domain_xml_file", "qemu_conf")}
    )
    plain = {
        key: params[key]
        for key in (
            "path",
            "qmp_socket",
            "name",
            "uuid",
            "image_version",
            "image_format",
            "parallel_channels",
            "bypass_cache",
            "max_bandwidth",
            "guest_state",
            "verify",
            "domain_xml_file",
            "overwrite",
            "qemu_conf",
            "systemd_unit",
        )
    }
    return SaveRequest(
        allow=frozenset(params["allow"]),
        timeout_seconds=params["timeout"],
        **plain,
    )


def domain_request_from(params: t.Mapping[str, t.Any]) -> DomainSaveRequest:
    """As `request_from`, for a domain of libvirt."""
    require_timeout(params["timeout"])
    require_path(params["path"])
    require_absolute(
        **{key: params[key] for key in ("path", "domain_xml_file", "qemu_conf")},
    )
    refuse_with_domain(params, **NOT_WITH_DOMAIN)
    plain = {
        key: params[key]
        for key in (
            "path",
            "domain",
            "uri",
            "image_version",
            "image_format",
            "parallel_channels",
            "bypass_cache",
            "domain_xml_file",
            "overwrite",
            "qemu_conf",
        )
    }
    return DomainSaveRequest(timeout_seconds=params["timeout"], **plain)


def managed_request_from(params: t.Mapping[str, t.Any]) -> ManagedSaveRequest:
    """As `request_from`, for a managed save."""
    require_timeout(params["timeout"])
    require_absolute(qemu_conf=params["qemu_conf"])
    refuse_with_domain(params, **NOT_WITH_DOMAIN)
    refuse_with_managed(
        params,
        path=None,
        image_version=None,
        image_format=None,
        parallel_channels=None,
        domain_xml_file=None,
        overwrite=False,
    )
    return ManagedSaveRequest(
        domain=params["domain"],
        uri=params["uri"],
        bypass_cache=params["bypass_cache"],
        timeout_seconds=params["timeout"],
        qemu_conf=params["qemu_conf"],
    )


async def run(params: t.Mapping[str, t.Any], *, check_mode: bool) -> SaveOutcome:
    """Save as the options say."""
    if params["managed"]:
        return await save_managed(managed_request_from(params), check_mode=check_mode)
    if params["domain"] is not None:
        return await save_domain(domain_request_from(params), check_mode=check_mode)
    return await save(request_from(params), check_mode=check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        supports_check_mode=True,
        required_one_of=[("qmp_socket", "domain")],
        required_if=REQUIRED_IF,
        mutually_exclusive=[("qmp_socket", "domain")],
    )
    (require_qmp if module.params["domain"] is None else require_libvirt)(module)
    try:
        with told(module):
            subject = module.params["domain"] or module.params["qmp_socket"]
            work = in_turn(
                module, lambda: run(module.params, check_mode=module.check_mode), subject
            )
            outcome = asyncio.run(interruptible(work))
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.as_result())


if __name__ == "__main__":
    main()
