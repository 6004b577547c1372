# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The beginning of an image: its header, its domain XML and the record of the save, which
`_image_record` reads."""

from __future__ import annotations

import os
import time
import typing as t

from .._image_access import confined_by
from .._qemu._bookmark import StateBefore
from .._qemu._description import Hardware
from .._qemu._fingerprint import UNREADABLE, Fingerprint
from .._qemu._guest import Guest
from .._qemu._process import boot_id, host_id, identify
from .._saveimage._header import FEATURE_MAPPED_RAM, ImageFormat, SaveHeader
from .._saveimage._life import LifeState, life_block
from .._saveimage._prefix import build_prefix, plan_prefix
from .._saveimage._record import RECORD_TAG, pack_block
from .._version import COLLECTION_VERSION
from ._plan import SavePlan

SCHEMA = 1
# In place of the path of disks that nobody here can look at.
_UNSEEN = "disks that are no files or devices of this host"
# Of the record that is written last: devices may be plugged meanwhile, disks are described then.
_RECORD_SPARE_BYTES = 32 << 10
_DISK_BYTES = 4 << 10


def state_before(guest: Guest) -> StateBefore:
    """What a run that undoes this save has to put back."""
    return StateBefore(guest.run_state, guest.offer.capabilities, guest.offer.parameters)


def build_record(guest: Guest, plan: SavePlan, inode: int) -> dict[str, t.Any]:
    """The record of a save: who saved, from which QEMU, what it was like before, into which
    file."""
    own = identify(os.getpid())
    return {
        "schema": SCHEMA,
        "saved_by": {
            "collection_version": COLLECTION_VERSION,
            "process": own.as_dict() if own else None,
            "host": host_id(),
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "source": {
            "name": plan.name,
            "uuid": plan.uuid,
            "qmp_socket": os.path.abspath(guest.qmp_socket),
            "process": guest.process.as_dict() if guest.process else None,
            "qemu_version": guest.qemu_version,
            "machine_type": guest.machine_type,
        },
        "ram_blocks": [
            {"name": block.name, "used_bytes": block.used_bytes} for block in guest.ram_blocks
        ],
        "hardware": guest.hardware.as_dict() if guest.hardware is not None else None,
        "launch": guest.surroundings.as_dict() if guest.surroundings is not None else None,
        "systemd_unit": plan.unit.name if plan.unit is not None else None,
        "confined_by": confined_by(guest.confinement),
        "before": state_before(guest).as_dict(),
        "negotiated": {
            "parallel_channels": plan.negotiated.channels,
            "bypass_cache": plan.negotiated.bypass_cache,
            "capabilities_on": list(plan.negotiated.capabilities_on),
        },
        "image": {"inode": inode},
        "guest_state": plan.guest_state,
    }


def completed_record(
    record: t.Mapping[str, t.Any], hardware: Hardware | None, disks: t.Sequence[Fingerprint]
) -> dict[str, t.Any]:
    """The record with what only the stopped guest shows."""
    return {
        **record,
        "hardware": hardware.as_dict() if hardware is not None else None,
        "disks": {"boot_id": boot_id(), "files": [disk.as_dict() for disk in disks]},
    }


def disks_record(disks: t.Sequence[Fingerprint], *, others: bool) -> dict[str, t.Any]:
    """The record of an image that libvirt wrote: what its domain's disks were like then.
    ``others``: it has disks beside those that nobody here can look at."""
    unseen = (
        [Fingerprint(_UNSEEN, UNREADABLE, {"reason": "not of this host"}, {})] if others else []
    )
    files = [disk.as_dict() for disk in (*disks, *unseen)]
    return {"schema": SCHEMA, "disks": {"boot_id": boot_id(), "files": files}}


def build_beginning(
    plan: SavePlan, domain_xml: str, record: t.Mapping[str, t.Any], *, disk_files: int = 0
) -> bytes:
    """Everything before the stream, with the partial magic: publishing sets the complete one.

    ``disk_files``: how many will be described in the completed record.
    """
    kind = plan.kind
    header = SaveHeader(
        complete=False,
        version=kind.version,
        data_length_bytes=0,
        was_running=plan.was_running,
        image_format=ImageFormat.from_label(kind.image_format),
        features=FEATURE_MAPPED_RAM if kind.version == 3 else 0,
    )
    room = len(pack_block(RECORD_TAG, record)) + _RECORD_SPARE_BYTES + _DISK_BYTES * disk_files
    layout = plan_prefix(domain_xml, None, room)
    return build_prefix(layout, header, domain_xml, None, record, life_block(LifeState.PARTIAL, {}))
