# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Parts of a result that save and restore return alike."""

from __future__ import annotations

import typing as t

from ._qemu._negotiation import Negotiated
from ._saveimage._verify import Structure


def sizes_result(structure: Structure) -> dict[str, t.Any]:
    """Sizes in bytes and counts in pages of a walked image."""
    return {
        "apparent_bytes": structure.apparent_bytes,
        "allocated_bytes": structure.allocated_bytes,
        "ram_bytes": structure.ram_bytes,
        "present_pages": structure.present_pages,
        "zero_pages": structure.zero_pages,
    }


def negotiated_result(negotiated: Negotiated) -> dict[str, t.Any]:
    """What was set in QEMU."""
    return {
        "layout": negotiated.layout,
        "parallel_channels": negotiated.channels,
        "bypass_cache": negotiated.bypass_cache,
        "capabilities_on": list(negotiated.capabilities_on),
    }
