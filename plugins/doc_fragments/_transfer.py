# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.

from __future__ import annotations


class ModuleDocFragment:
    """Options that the saving and the restoring module share."""

    DOCUMENTATION = r"""
options:
  parallel_channels:
    description:
      - How many multifd channels move RAM at once.
      - Left out, the plan takes one for each processor that the module may use, at most four;
        the result says so.
      - Refused with a sequential layout.
    type: int
  bypass_cache:
    description:
      - Whether RAM goes past the host's page cache with O_DIRECT.
      - V(true) is an error where it is impossible; the filesystem is tried before QEMU is asked,
        because QEMU up to at least 10.1 ends a guest that it cannot open an O_DIRECT channel for.
      - Left out, the plan decides, and the result says why.
    type: bool
  timeout:
    description:
      - Seconds after which the run is cancelled and the guest is put back as it was.
      - V(0) means no limit.
    type: int
    default: 0
  domain:
    description:
      - Name or UUID of a libvirt domain, in place of a monitor. libvirt then runs, saves and ends
        its QEMU, and this module sees to the rest.
      - Options that only QEMU's own monitor can serve are refused with it, by name.
    type: str
  uri:
    description: The libvirt daemon of O(domain), on this host.
    type: str
    default: qemu:///system
requirements:
  - QEMU >= 9.1 (9.0 without O(bypass_cache))
  - Python >= 3.8
  - qemu.qmp >= 0.0.3 (Python library, on the managed host), without O(domain)
  - libvirt-python (Python library, on the managed host), with O(domain); before its 12.1, virsh
    does what needs parallel channels
notes:
  - A QMP socket serves one client at a time. Give QEMU a C(-qmp) socket of its own for this
    collection where another program holds the first one.
  - Run the module with C(become) or as the user that runs the guest.
"""
