# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""qemu_restore, with its progress shown."""

from __future__ import annotations

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._progress_action import (
    ProgressAction,
)


class ActionModule(ProgressAction):
    """See `ProgressAction`."""
