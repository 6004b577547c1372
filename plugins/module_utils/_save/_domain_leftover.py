# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a run that died left of a save through libvirt: libvirt itself goes on without it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from .._errors import ImageInvalid, Refused
from .._image_record import SavedImage, describe, describe_target
from .._libvirt._domain import Domain
from .._pipeline import ProgramFailed
from .._saveimage._publish import PartialImage, partial_path
from ._domain_plan import is_of
from ._domain_report import verify_written
from ._domain_request import DomainSaveRequest
from ._domain_written import (
    look_at_disks,
    machine_in,
    make_version_3,
    note_disks,
    written_since,
)


@dataclass(frozen=True)
class Treated:
    """What was done with the unfinished file, or in check mode would be, and why. ``image``: what
    is published, under its own name; None where the file is removed."""

    remedy: str
    reason: str
    image: SavedImage | None = None


async def treat_leftover(
    request: DomainSaveRequest, domain: Domain | None, *, check_mode: bool
) -> Treated | None:
    """Remove or publish the unfinished file of the request; nothing in check mode. None where
    nothing was left.

    Raises `Refused` for what must be looked at, `ImageLocked` while its run lives.
    """
    image = PartialImage.adopt(request.path, partial_path(request.path))
    if image is None:
        return None
    with contextlib.closing(image):
        saved = await _read(image)
        if saved is not None and saved.saved_from is not None:
            raise Refused(
                f"{image.path} was left by a save over QMP that died. Run that save again, with "
                "its qmp_socket: it finishes or undoes what was begun."
            )
        if saved is not None and not is_of(saved, request.domain, domain):
            raise Refused(
                f"{image.path} was left by a save of {saved.name} (UUID {saved.uuid}) that died. "
                "Run that save again: it finishes or undoes what was begun."
            )
        if domain is not None and domain.active:
            if not check_mode:
                image.discard()
            return Treated("remove", "the domain goes on, and its save was never finished")
        if saved is None or saved.state != "ready":
            raise Refused(
                f"{image.path} was left by a save that died, and is not whole; no QEMU holds the "
                "guest any more. Its RAM is lost. Remove that file by hand, then start the domain.",
                guest={"state": "crashed"},
            )
        _refuse_if_taken(request.path, saved)
        machine = machine_in(image)
        changed = written_since(image, machine)
        if changed:
            raise Refused(
                f"{image.path} is a whole image of {saved.name}, left by a save that died; "
                f"{', '.join(changed)} was written since, so that the domain has run meanwhile and "
                "the image is stale. Restoring it would corrupt its disks. Remove it by hand.",
                guest={"state": "absent"},
            )
        if not check_mode:
            image.sync()
            note_disks(image, look_at_disks(machine), machine)
            if request.image_version == 3:
                make_version_3(image)
            image.give_name()
        reason = "libvirt finished the save that its run did not live to see"
        return Treated("publish", reason, replace(saved, path=request.path))


async def _read(image: PartialImage) -> SavedImage | None:
    try:
        saved = describe(image.fd, image.path)
        if saved.state == "ready":
            await verify_written(image.fd, image.path, saved.image_format)
    except (ImageInvalid, ProgramFailed):
        return None
    return saved


def _refuse_if_taken(path: str, saved: SavedImage) -> None:
    there = describe_target(path)
    if there is not None and (there.state == "ready" or there.uuid != saved.uuid):
        raise Refused(
            f"{partial_path(path)} is a whole image of {saved.name}, left by a run that died; its "
            f"name is taken by a {there.state} image of {there.name}. Move one of them, then run "
            "again."
        )
