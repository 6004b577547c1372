# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.

from __future__ import annotations


class ModuleDocFragment:
    """The attributes that every module of this collection has."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the plan without changing anything.
    support: full
  diff_mode:
    description:
      - Returns the guest's state and the image's path, version, format and layout, before and
        after. The same in check mode and in a real run.
    support: full
  idempotent:
    description: A second run with the same options changes nothing and says so.
    support: full
  platform:
    description: Target operating systems.
    platforms: linux
    support: full
  action_group:
    description: Use C(group/vmfleet.suspend.qemu) in C(module_defaults) to set defaults.
    membership:
      - vmfleet.suspend.qemu
    support: full
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Only reads, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: N/A
    details: The module only reads.
  idempotent:
    description: Only reads.
    support: full
  platform:
    description: Target operating systems.
    platforms: linux
    support: full
  action_group:
    description: Use C(group/vmfleet.suspend.qemu) in C(module_defaults) to set defaults.
    membership:
      - vmfleet.suspend.qemu
    support: full
"""
