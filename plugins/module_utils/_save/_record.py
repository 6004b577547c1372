# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The record of a save, as it is written into the image's padding; `_image_record` reads it."""

from __future__ import annotations

import os
import time
import typing as t

from .._qemu._guest import Guest
from .._qemu._process import identify
from .._version import COLLECTION_VERSION

SCHEMA = 1


def build_record(
    guest: Guest, *, name: str, uuid: str | None, guest_state: str
) -> dict[str, t.Any]:
    """The record of a save: who saved, from which QEMU, what it was like before."""
    own = identify(os.getpid())
    return {
        "schema": SCHEMA,
        "saved_by": {
            "collection_version": COLLECTION_VERSION,
            "process": own.as_dict() if own else None,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "source": {
            "name": name,
            "uuid": uuid,
            "qmp_socket": os.path.abspath(guest.qmp_socket),
            "process": guest.process.as_dict() if guest.process else None,
            "qemu_version": guest.qemu_version,
            "machine_type": guest.machine_type,
        },
        "ram_blocks": [
            {"name": block.name, "used_bytes": block.used_bytes} for block in guest.ram_blocks
        ],
        "before": {
            "run_state": guest.run_state,
            "capabilities": dict(guest.offer.capabilities),
            "parameters": dict(guest.offer.parameters),
        },
        "guest_state": guest_state,
    }
