# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  show_progress:
    description:
      - Whether what happens to each guest is shown while it happens. The variable
        C(vmfleet_progress), when false, turns it off for every task.
      - Nothing is shown in check mode, under C(no_log), and in a task of your own C(async).
    type: bool
    default: true
  progress_file:
    description: Where progress is written on the host. For this collection's own use.
    type: path
"""
