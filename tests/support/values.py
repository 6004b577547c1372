# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values for tests of decisions: a guest and an image with sane defaults, varied by keyword."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import SavedImage
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._domain import Domain
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._bookmark import (
    Bookmark,
    StateBefore,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._guest import Guest
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._negotiation import Offer
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import (
    ProcessIdentity,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._ram_blocks import LiveRamBlock
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._surroundings import (
    Surroundings,
)

UUID = "6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77"
OTHER_UUID = "11111111-2222-3333-4444-555555555555"
SOCKET = "/run/qemu/web01.qmp"
IMAGE = "/store/web01.save"
THIS_QEMU = ProcessIdentity("boot-1", 4711, 1000)
OTHER_QEMU = ProcessIdentity("boot-1", 4712, 2000)
RAM_BYTES = 64 << 20

BOOKMARK = Bookmark("save", IMAGE, 4711, StateBefore("running", {"events": False}, {}))

OFFER = Offer(
    capabilities={"events": False, "mapped-ram": False, "multifd": False, "xbzrle": False},
    parameters={"max-bandwidth": 1 << 27, "multifd-channels": 2, "direct-io": False},
    migrate_incoming_exit_on_error=True,
)

SURROUNDINGS = Surroundings(
    argv=("qemu-system-x86_64", "-machine", "q35", "-m", "64"),
    executable="/usr/bin/qemu-system-x86_64",
    executable_deleted=False,
    cwd="/",
    user_id=64055,
    group_id=64055,
    groups=(64055,),
    limits={},
    umask=0o22,
    environment={},
    namespaces={},
)


def a_domain(state: str = "running", **changes: t.Any) -> Domain:
    """A persistent domain web01."""
    values = {
        "name": "web01",
        "uuid": UUID,
        "state": state,
        "persistent": True,
        "autostart": False,
        "has_managed_save": False,
        "memory_bytes": 1 << 30,
        **changes,
    }
    return Domain(**values)


def a_guest(**changes: t.Any) -> Guest:
    """A running guest on SOCKET with 64 MiB of RAM."""
    guest = Guest(
        qmp_socket=SOCKET,
        process=THIS_QEMU,
        name="web01",
        uuid=UUID,
        run_state="running",
        qemu_version="10.0.2",
        machine_type="pc-q35-10.0",
        architecture="x86_64",
        accelerator="kvm",
        memory_bytes=RAM_BYTES,
        vcpus=1,
        migration_status=None,
        blocked_reasons=(),
        offer=OFFER,
        block_nodes=(),
        block_jobs=(),
        block_exports=(),
        missing_files=frozenset(),
        ram_blocks=(LiveRamBlock("pc.ram", 4096, RAM_BYTES, RAM_BYTES, 0x7F0000000000),),
        surroundings=SURROUNDINGS,
    )
    return replace(guest, **changes)


def an_image(**changes: t.Any) -> SavedImage:
    """A ready mapped-ram image of `a_guest`, saved from THIS_QEMU."""
    image = SavedImage(
        path=IMAGE,
        state="ready",
        version=3,
        image_format="raw",
        layout="mapped-ram",
        compressor=None,
        name="web01",
        uuid=UUID,
        machine_type="pc-q35-10.0",
        was_running=True,
        data_offset_bytes=98304,
        ram_blocks=(("pc.ram", RAM_BYTES),),
        all_ram_names=frozenset({"pc.ram"}),
        qmp_socket=SOCKET,
        saved_from=THIS_QEMU,
        loaded_into=None,
        quit_by_save=True,
        meant_to_quit=True,
        continued=False,
    )
    return replace(image, **changes)
