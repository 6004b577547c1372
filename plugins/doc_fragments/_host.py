# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.

from __future__ import annotations


class ModuleDocFragment:
    """Options that the modules for a whole host share."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - Directory of the images, which are called C(NAME-UUID.save).
    type: path
    default: /var/lib/vmfleet/images
  journal:
    description:
      - Directory of the journals. Each suspend has one, which says how far each guest is and is on
        disk before the next step begins; it is what a later run goes on from, after a reboot, a
        killed module or a lost controller.
    type: path
    default: /var/lib/vmfleet/journal
  include:
    description: Shell patterns on guests' names, or whole UUIDs; guests that none matches are left
      alone. None means all.
    type: list
    elements: str
    default: []
  exclude:
    description: Shell patterns on the names of guests that are left alone, or their whole UUIDs,
      whatever O(include) says.
    type: list
    elements: str
    default: []
  max_concurrent:
    description:
      - How many guests are moved at the same time.
      - Left out, the plan takes one for each processor, at least two and at most eight, and at most
        four for each store; the result says so.
    type: int
  parallel_channels:
    description:
      - How many multifd channels move the RAM of each guest at once.
      - Left out, the processors are shared between the guests that are moved at the same time.
    type: int
  bypass_cache:
    description: Whether RAM goes past the host's page cache with O_DIRECT; see
      O(vmfleet.suspend.qemu_save#module:bypass_cache).
    type: bool
  timeout:
    description:
      - Seconds for each guest, after which its save or restore is cancelled and it is put back as
        it was.
      - V(0) means no limit.
    type: int
    default: 0
  guests:
    description:
      - What is wanted of single guests. One list may serve a whole fleet, and both modules; names
        that no guest of this host has are told in the plan.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The guest's name or UUID.
        type: str
        required: true
      priority:
        description:
          - The higher, the later it is suspended and the earlier resumed. Where the window or a
            store is too small for all, the lowest are given up first.
        type: int
        default: 0
      depends_on:
        description: Guests that it needs, by name or UUID. They are suspended after it and resumed
          before it.
        type: list
        elements: str
        default: []
      group:
        description:
          - Guests of one group stand still before the first of them is saved, and run again when
            the last of them is restored. They are suspended together or not at all.
        type: str
      policy:
        description:
          - What happens where it cannot be saved, or not within the window or the space of its
            store. V(save) saves it all the same, later than the window; V(shutdown) asks it to shut
            down; V(leave) leaves it running; V(fail) refuses the whole run before anything is
            touched.
          - Left out, V(fail).
        type: str
        choices: [save, shutdown, leave, fail]
      path:
        description: Its image, in place of the one in O(store).
        type: path
      managed:
        description: See O(vmfleet.suspend.qemu_save#module:managed).
        type: bool
      uuid:
        description: UUID of a guest that has none; see O(vmfleet.suspend.qemu_save#module:uuid).
        type: str
      image_version:
        description: See O(vmfleet.suspend.qemu_save#module:image_version).
        type: int
        choices: [2, 3]
      image_format:
        description: See O(vmfleet.suspend.qemu_save#module:image_format).
        type: str
        choices: [raw, gzip, bzip2, xz, lzop, zstd, sparse]
      parallel_channels:
        description: As above, for this guest.
        type: int
      bypass_cache:
        description: As above, for this guest.
        type: bool
      max_bandwidth:
        description: See O(vmfleet.suspend.qemu_save#module:max_bandwidth).
        type: bytes
      verify:
        description: See O(vmfleet.suspend.qemu_save#module:verify).
        type: str
        choices: [structure, content]
      domain_xml_file:
        description: See O(vmfleet.suspend.qemu_save#module:domain_xml_file).
        type: path
      overwrite:
        description: See O(vmfleet.suspend.qemu_save#module:overwrite).
        type: bool
      systemd_unit:
        description: See O(vmfleet.suspend.qemu_save#module:systemd_unit).
        type: str
      allow:
        description:
          - Refusals to override, by name; see O(vmfleet.suspend.qemu_save#module:allow) and
            O(vmfleet.suspend.qemu_restore#module:allow).
        type: list
        elements: str
        choices: [lose_bitmaps, changed_disks, other_machine, spent, unsteady_store]
        default: []
      timeout:
        description: As above, for this guest.
        type: int
      argv:
        description: See O(vmfleet.suspend.qemu_restore#module:argv).
        type: list
        elements: str
      load:
        description: See O(vmfleet.suspend.qemu_restore#module:load).
        type: str
        choices: [eager, lazy]
      prefetch:
        description: See O(vmfleet.suspend.qemu_restore#module:prefetch).
        type: str
        choices: [none, background, full]
      run_state:
        description: See O(vmfleet.suspend.qemu_restore#module:run_state).
        type: str
        choices: [as_saved, running, paused]
      trust_recorded_argv:
        description: See O(vmfleet.suspend.qemu_restore#module:trust_recorded_argv).
        type: bool
      reset_shared_memory:
        description: See O(vmfleet.suspend.qemu_restore#module:reset_shared_memory).
        type: bool
      remove_image:
        description: See O(vmfleet.suspend.qemu_restore#module:remove_image).
        type: bool
      ready_check:
        description: See O(vmfleet.suspend.qemu_restore#module:ready_check).
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
requirements:
  - QEMU >= 9.1 (9.0 without O(bypass_cache))
  - Python >= 3.8
  - qemu.qmp >= 0.0.3 (Python library, on the managed host), for guests behind monitors
  - libvirt-python (Python library, on the managed host), for guests of libvirt
"""
