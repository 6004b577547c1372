# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU 10.0.2 offers, and what is usually asked of it."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._negotiation import Ask, Offer
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import CAPABILITIES, PARAMETERS

OFFER = Offer(CAPABILITIES, PARAMETERS, migrate_incoming_exit_on_error=True)
SAVE = Ask(
    direction="save",
    layout="mapped-ram",
    channels=None,
    bypass_cache=None,
    max_bandwidth_bytes=None,
    cpu_count=2,
    direct_io_proved=None,
)
RESTORE = replace(SAVE, direction="restore")


def without(offer: Offer, *names: str) -> Offer:
    """The offer of an older QEMU."""
    return Offer(
        {name: on for name, on in offer.capabilities.items() if name not in names},
        {name: value for name, value in offer.parameters.items() if name not in names},
        offer.migrate_incoming_exit_on_error,
    )
