#!/usr/bin/python
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_saveimage_info
short_description: Tell what save images are, hold and whether they may be restored
version_added: 1.0.0
description:
  - Describes one save image or all save images of a directory, those of this collection and those
    of C(virsh save), C(virsh managedsave) and external memory snapshots.
  - The domain description is returned with passwords and other possible secrets replaced; how QEMU
    was started is never returned.
extends_documentation_fragment:
  - vmfleet.suspend._attributes
  - vmfleet.suspend._attributes.info_module
options:
  path:
    description:
      - An image, or a directory whose files are looked at, not those of its subdirectories.
      - A path that does not exist gives an empty list.
    type: path
    required: true
  read_memory_map:
    description:
      - Whether to walk each image's RAM blocks, page bitmaps, file holes and end marker too. The
        time for it grows with these, not with the guest's RAM.
    type: bool
    default: false
seealso:
  - module: vmfleet.suspend.qemu_save
  - module: vmfleet.suspend.qemu_restore
author:
  - The vmfleet.suspend authors (@vmfleet)
"""

EXAMPLES = r"""
- name: Look at a store
  vmfleet.suspend.qemu_saveimage_info:
    path: /var/lib/vmfleet/images
  register: store

- name: Stop when one of its images is damaged
  ansible.builtin.assert:
    that: store.images | selectattr('problems') | length == 0

- name: Look into one image
  vmfleet.suspend.qemu_saveimage_info:
    path: /var/lib/vmfleet/images/web01.save
    read_memory_map: true
"""

RETURN = r"""
skipped_files:
  description: How many files were looked at that are no save images.
  returned: success
  type: int
  sample: 0
images:
  description: The images, by file name.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
      returned: always
      sample: /var/lib/vmfleet/images/web01.save
    state:
      description:
        - V(ready) may be restored, V(spent) was restored or continued since, V(partial) was never
          finished or is being written. V(invalid) is damaged and V(unreadable) cannot be opened or
          not be read to its end; see RV(images[].problems).
      type: str
      returned: always
      sample: ready
    problems:
      description:
        - What is wrong with it, naming the offset in the file; for V(unreadable) the error that the
          store gave.
      type: list
      elements: str
      returned: always
      sample: []
    apparent_bytes:
      description: File size; holes count.
      type: int
      returned: when it could be opened
      sample: 1082349834
    allocated_bytes:
      description: Bytes that the file occupies on its store.
      type: int
      returned: when it could be opened
      sample: 545382400
    version:
      description: Header version.
      type: int
      returned: when the header could be read
      sample: 3
    image_format:
      description: Format as the header names it.
      type: str
      returned: when the header could be read
      sample: raw
    features:
      description: Feature bits of a version 3 header.
      type: list
      elements: str
      returned: when the header could be read
      sample: [mapped-ram]
    byte_order:
      description: V(little) or V(big), that of the host that wrote it.
      type: str
      returned: when the header could be read
      sample: little
    was_running:
      description: Whether the guest ran when it was saved.
      type: bool
      returned: when the header could be read
      sample: true
    data_offset_bytes:
      description: Where QEMU's stream starts.
      type: int
      returned: when the header could be read
      sample: 98304
    domain_xml:
      description: The domain description, secrets replaced.
      type: str
      returned: when the header could be read
      sample: <domain type="kvm"><name>web01</name></domain>
    recorded:
      description: Whether the image carries this collection's own record.
      type: bool
      returned: when the header could be read
      sample: true
    collection_version:
      description: Release of this collection that wrote it, null for other writers.
      type: str
      returned: when the header could be read
      sample: 1.0.0
    saved_at:
      description: When the save began, null when not recorded.
      type: str
      returned: when the header could be read
      sample: "2026-11-22T23:31:36Z"
    qemu_version:
      description: The QEMU that was saved, null when not recorded.
      type: str
      returned: when the header could be read
      sample: 10.0.2
    qmp_socket:
      description: Monitor that the guest was saved from, null when not recorded.
      type: str
      returned: when the stream could be read
      sample: /run/qemu/web01.qmp
    layout:
      description:
        - V(mapped-ram) or V(sequential), as found in the stream itself; V(unknown) for a partial
          image.
      type: str
      returned: when the stream could be read
      sample: mapped-ram
    compressor:
      description:
        - Format of a compressed stream, as found in the stream itself; null for others. Its inside
          is not looked at, so machine type and RAM blocks stay unknown.
      type: str
      returned: when the stream could be read
      sample: zstd
    name:
      description: The guest's name.
      type: str
      returned: when the stream could be read
      sample: web01
    uuid:
      description: The guest's UUID, null where it has none.
      type: str
      returned: when the stream could be read
      sample: 6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77
    machine_type:
      description: Machine type as QEMU resolved it.
      type: str
      returned: when the stream could be read
      sample: pc-q35-10.0
    ram_bytes:
      description: Bytes of all RAM blocks; 0 where the stream does not tell.
      type: int
      returned: when the stream could be read
      sample: 1074204672
    write_protected:
      description:
        - How the file is kept from changing, as it is while a guest runs from it (C(load=lazy)
          of M(vmfleet.suspend.qemu_restore)). V(immutable) binds everybody, V(mode) all but root;
          null where it may be written.
      type: str
      returned: when the stream could be read
      sample: immutable
    mapped_by_pid:
      description: The QEMU that runs from a write-protected image, null when none lives.
      type: int
      returned: when the stream could be read
      sample: 4712
    present_pages:
      description: Pages in the image; null unless the layout is mapped-ram.
      type: int
      returned: when O(read_memory_map=true) and the image is whole
      sample: 132880
    zero_pages:
      description: Pages that are zero and absent; null unless the layout is mapped-ram.
      type: int
      returned: when O(read_memory_map=true) and the image is whole
      sample: 129378
    capabilities:
      description: Migration capabilities that the stream names.
      type: list
      elements: str
      returned: when O(read_memory_map=true) and the image is whole
      sample: [mapped-ram]
    devices:
      description: Devices in the stream, in its order.
      type: list
      elements: str
      returned: when O(read_memory_map=true) and the image is whole
      sample: [timer, cpu_common, cpu]
    ram_blocks:
      description:
        - RAM blocks, in the stream's order. What a sequential stream does not tell is null.
      type: list
      elements: dict
      returned: when O(read_memory_map=true) and the image is whole
      contains:
        name:
          description: QEMU's name for it.
          type: str
          returned: always
          sample: pc.ram
        used_length_bytes:
          description: Bytes of RAM.
          type: int
          returned: always
          sample: 1073741824
        page_size_bytes:
          description: Bytes of a page.
          type: int
          returned: always
          sample: 4096
        bitmap_offset_bytes:
          description: Where its page bitmap lies in the file.
          type: int
          returned: always
          sample: 98452
        bitmap_bytes:
          description: Bytes of the bitmap.
          type: int
          returned: always
          sample: 32768
        pages_offset_bytes:
          description: Where its first page lies in the file.
          type: int
          returned: always
          sample: 1048576
        present_pages:
          description: Pages in the image.
          type: int
          returned: always
          sample: 132600
        zero_pages:
          description: Pages that are zero.
          type: int
          returned: always
          sample: 129544
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.vmfleet.suspend.plugins.module_utils._ansible import (
    fail,
    require_absolute,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_info import list_images


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            read_memory_map=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        require_absolute(path=path)
        listing = list_images(path, read_memory_map=module.params["read_memory_map"])
    except (VmfleetError, OSError) as exc:
        fail(module, exc)
    module.exit_json(
        changed=False, images=list(listing.images), skipped_files=listing.skipped_files
    )


if __name__ == "__main__":
    main()
