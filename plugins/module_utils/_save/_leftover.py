# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a run that died left of a save: a file in the store, a bookmark in QEMU, or both."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

from .._errors import ImageInvalid, Refused
from .._image_record import (
    SPENT_BY,
    SPENT_BY_FAILURE,
    SPENT_FOR_INSPECTION,
    UNDOING,
)
from .._qemu._bookmark import SAVE, Found, StateBefore
from .._qemu._guest import Guest
from .._qemu._process import ProcessIdentity, host_id, is_alive
from .._saveimage._header import MAGIC_PARTIAL
from .._saveimage._life import LifeState, life_notes, life_state
from .._saveimage._prefix import Prefix, read_prefix
from .._saveimage._publish import PartialImage, partial_path, target_of

# States of the file beside those of an image's life.
GONE = "gone"
UNWRITTEN = "unwritten"
PARTIAL = LifeState.PARTIAL.value
READY = LifeState.READY.value
SPENT = LifeState.SPENT.value

# Whose QEMU the file was written by.
THIS = "this"
DEAD = "dead"
OTHER = "other"
NOBODY = "nobody"

_FIRST_BYTES = 4096


@dataclass(frozen=True)
class Leftover:
    """``state`` of the file at ``path``: gone (only QEMU remembers it), unwritten (QEMU never heard
    of it), partial, ready or spent. ``published``: it has its final name. ``owner``: whether the
    QEMU it was written by is this one, dead, or another that lives; nobody when unwritten.
    ``before``: what there is to put back; None where nobody noted it. ``fdset_id``: the fdset with
    the bookmark, None when it is not in this QEMU any more. ``spent_by``: what a save
    noted when it spent the image, None where a restore elsewhere did. ``undoing``: its own run was
    undoing it."""

    target: str
    path: str
    state: str
    published: bool
    owner: str
    before: StateBefore | None = None
    fdset_id: int | None = None
    version: int | None = None
    image_format: str | None = None
    name: str | None = None
    uuid: str | None = None
    qmp_socket: str | None = None
    source: ProcessIdentity | None = None
    negotiated: t.Mapping[str, t.Any] | None = None
    asked_guest_state: str | None = None
    spent_by: str | None = None
    undoing: bool = False

    @property
    def continues(self) -> bool:
        """Whether the save that spent the image was about to let the guest run, as it does even
        with one that was paused before."""
        return self.spent_by == SPENT_FOR_INSPECTION

    @property
    def is_mapped_ram(self) -> bool:
        """Whether its pages can be compared with the guest's RAM."""
        return self.version == 3 or self.image_format == "sparse"


def places(target: str, found: t.Sequence[Found]) -> list[str]:
    """Files to look at, the most telling first: the one beside the target, those that this QEMU
    remembers, the target itself."""
    paths = [partial_path(target)]
    for mark in (item.bookmark for item in found):
        if mark.doing == SAVE:
            paths += [mark.path, target_of(mark.path)]
    return list(dict.fromkeys([*paths, target]))


def read_leftover(
    image: PartialImage, guest: Guest | None, found: t.Sequence[Found]
) -> Leftover | None:
    """What the file behind ``image``, which its writer no longer holds, was left as; None when it
    is nothing of ours.

    Raises `Refused` for a hidden file that is none of ours: it is in the way.
    """
    published = image.path == image.target
    inode = os.fstat(image.fd).st_ino
    name = os.path.basename(partial_path(image.target))
    mark = next((item for item in found if item.bookmark.matches(inode, name)), None)
    before = mark.bookmark.before if mark else None
    fdset_id = mark.fdset_id if mark else None
    prefix = _read_prefix(image, published=published)
    record = prefix.record if prefix is not None else None
    if prefix is None or record is None:
        if published:
            return None
        if prefix is not None and prefix.header.complete:
            raise _in_the_way(image.path, "a whole image without our record")
        state, owner = (PARTIAL, THIS) if mark else (UNWRITTEN, NOBODY)
        return Leftover(
            image.target, image.path, state, False, owner, before=before, fdset_id=fdset_id
        )
    source = _section(record, "source")
    process = ProcessIdentity.from_dict(source.get("process"))
    qmp_socket = source.get("qmp_socket")
    owner = THIS if mark else _owner(process, qmp_socket, guest)
    if owner == DEAD and _section(record, "saved_by").get("host", host_id()) != host_id():
        owner = OTHER
    if owner == THIS and not mark and _section(record, "image").get("inode") != inode:
        owner = DEAD  # a copy: the save was not written into this file
    return Leftover(
        target=image.target,
        path=image.path,
        state=life_state(prefix).value,
        published=published,
        owner=owner,
        before=StateBefore.from_dict(record.get("before")) or before,
        fdset_id=fdset_id,
        version=prefix.header.version,
        image_format=prefix.header.image_format.label,
        name=source.get("name"),
        uuid=source.get("uuid"),
        qmp_socket=qmp_socket,
        source=process,
        negotiated=_section(record, "negotiated"),
        asked_guest_state=record.get("guest_state"),
        spent_by=_spent_by(prefix),
        undoing=life_notes(prefix).get(UNDOING) is True,
    )


def remembered_only(found: Found) -> Leftover:
    """A leftover whose file somebody removed."""
    mark = found.bookmark
    return Leftover(
        target=target_of(mark.path),
        path=mark.path,
        state=GONE,
        published=False,
        owner=THIS,
        before=mark.before,
        fdset_id=found.fdset_id,
    )


def _spent_by(prefix: Prefix) -> str | None:
    noted = life_notes(prefix).get(SPENT_BY)
    return noted if noted in (SPENT_FOR_INSPECTION, SPENT_BY_FAILURE) else None


def _section(record: t.Mapping[str, t.Any], key: str) -> dict[str, t.Any]:
    section = record.get(key)
    return section if isinstance(section, dict) else {}


def _read_prefix(image: PartialImage, *, published: bool) -> Prefix | None:
    with contextlib.suppress(ImageInvalid):
        return read_prefix(image.fd, image.path)
    start = os.pread(image.fd, _FIRST_BYTES, 0)
    # Cut within its first write, perhaps, or by a QEMU that drops what is before its stream.
    cut = len(start) < len(MAGIC_PARTIAL) and MAGIC_PARTIAL.startswith(start)
    if published or cut or start.startswith(MAGIC_PARTIAL) or not any(start):
        return None
    raise _in_the_way(image.path, "not a save image")


def _in_the_way(path: str, what: str) -> Refused:
    return Refused(
        f"{path} is in the way: the image is called so while it is written, and this file is "
        f"{what}. Move it, or remove it if nobody needs it."
    )


def _owner(process: ProcessIdentity | None, qmp_socket: str | None, guest: Guest | None) -> str:
    if process is not None:
        if guest is not None and process == guest.process:
            return THIS
        return OTHER if is_alive(process) else DEAD
    # A QEMU in another pid namespace is known by its monitor alone.
    if guest is None:
        return DEAD
    same = guest.process is None and os.path.abspath(guest.qmp_socket) == qmp_socket
    return THIS if same else OTHER
