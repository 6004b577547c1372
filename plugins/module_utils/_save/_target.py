# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What is at the target already, and what that means: replace it, refuse, or nothing left to do."""

from __future__ import annotations

import os
import uuid as uuid_module

from .._errors import Refused
from .._image_record import SavedImage
from .._qemu._guest import NIL_UUID, Guest


def canonical_uuid(text: str, origin: str) -> str:
    """Lower-case dashed form; raises `Refused` for what is not a UUID or is all zeros."""
    try:
        value = str(uuid_module.UUID(text))
    except ValueError:
        raise Refused(f"{origin} is not a UUID: {text!r}.") from None
    if value == NIL_UUID:
        raise Refused(f"{origin} is all zeros, which identifies no guest.")
    return value


def is_same_guest(existing: SavedImage, guest: Guest, uuid: str | None) -> bool:
    """Same UUID, or the very QEMU process that the image came from or was loaded into."""
    if uuid is not None and existing.uuid is not None:
        return uuid == existing.uuid
    return guest.process is not None and guest.process in (
        existing.saved_from,
        existing.loaded_into,
    )


def replace_refusal(existing: SavedImage, guest: Guest, uuid: str | None, path: str) -> str | None:
    """Why an image at the target may not be replaced without `overwrite`; None when it may.

    The same guest's image may go when it is spent, or when the guest has run since it was taken.
    """
    whose = f"{path} already holds a {existing.state} image of {existing.name or 'a guest'}"
    if not is_same_guest(existing, guest, uuid):
        return f"{whose} (UUID {existing.uuid or 'unknown'}), which is not this guest"
    if existing.state == "spent":
        return None
    if existing.state == "partial":
        return f"{whose}: it was never finished, or another program is writing it"
    loaded_here = guest.process is not None and existing.loaded_into == guest.process
    if guest.run_state == "running" or (guest.run_state == "paused" and not loaded_here):
        return None
    return f"{whose}, and the guest has not run since it was taken"


def already_saved(
    path: str,
    qmp_socket: str,
    uuid: str | None,
    existing: SavedImage | None,
    source_alive: bool,
) -> tuple[bool, str]:
    """Whether a save of a guest that is gone was done before, and the reason either way.

    ``source_alive``: the QEMU that the image was saved from still lives.
    """
    if existing is None:
        return False, f"there is no image at {path}"
    if existing.state != "ready":
        return False, f"the image at {path} is {existing.state}"
    if existing.qmp_socket != os.path.abspath(qmp_socket):
        return False, (
            f"the image at {path} was saved from "
            f"{existing.qmp_socket or 'a guest that was not recorded'}"
        )
    if uuid and existing.uuid != canonical_uuid(uuid, "Option uuid"):
        return False, f"the image at {path} is of the guest with UUID {existing.uuid}"
    if source_alive and existing.saved_from is not None:
        return False, (
            f"the QEMU that the image at {path} was saved from still lives, as process "
            f"{existing.saved_from.pid}, and only its monitor is gone"
        )
    if not (existing.quit_by_save or existing.meant_to_quit):
        return False, (
            f"the save into {path} was not asked to end its QEMU, which is gone since; the image "
            "is ready, and qemu_restore brings the guest back"
        )
    return True, "this guest was saved into this image and quit before"
