# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What is asked before a guest's RAM may be mapped from its image."""

from __future__ import annotations

import os
import stat

from .._qemu._command_line import options_of
from .._qemu._mapping_obstacles import cannot_shrink
from .._qemu._surroundings import Surroundings
from .._saveimage._bitmap import read_bitmap
from .._saveimage._stale_pages import first_stale_page
from .._saveimage._store_kind import unsteady
from .._saveimage._verify import Structure
from ._checks import ALLOWED, UNKNOWN, YES, Check
from ._launching import Launch
from ._request import RestoreRequest

UNSTEADY_STORE = "unsteady_store"
_BALLOON = (
    "The guest has a balloon, which gives no memory back to this host while the guest's RAM is "
    "mapped from its image."
)
_ACCESS_LIST = "system.posix_acl_access"


def look_at_mapping(
    request: RestoreRequest, fd: int, structure: Structure, launch: Launch
) -> list[Check]:
    """Whether store, image and QEMU's user allow that ``launch`` maps its RAM from the image
    ``fd``. Reads what of the image is marked absent and holds data: nothing, as a rule."""
    return [
        check_store(unsteady(fd), request),
        _check_pages(request.path, fd, structure, launch),
        check_reader(request.path, os.fstat(fd), launch.surroundings, has_access_list=_listed(fd)),
    ]


def check_store(reason: str | None, request: RestoreRequest) -> Check:
    """``reason``: why the image's store may go away; None when nothing says so."""
    name = "store_steady"
    if reason is None:
        return Check(name, YES)
    words = f"The image may go away while the guest runs from it: {reason}."
    if UNSTEADY_STORE in request.allow:
        return Check(name, ALLOWED, warnings=(words,))
    return Check(
        name,
        UNKNOWN,
        (
            f"{words} Its guest would hang or be killed then. Copy the image to a disk of this "
            f"host, set load to eager, or allow {UNSTEADY_STORE}.",
        ),
    )


def _check_pages(path: str, fd: int, structure: Structure, launch: Launch) -> Check:
    name = "image_mappable"
    mapped = {block.name for block in launch.mapped}
    order = structure.prefix.header.byte_order
    problems = []
    for block in structure.head.ram_blocks:
        if block.name not in mapped:
            continue
        stale = first_stale_page(fd, block, read_bitmap(fd, path, block, order))
        if stale is not None:
            offset = (block.pages_offset_bytes or 0) + stale * (block.page_size_bytes or 0)
            problems.append(
                f"Page {stale} of RAM block {block.name} is zero in the guest, but the image "
                f"holds old content for it at offset {offset}, as a migration of a running guest "
                "leaves it; mapped, the guest would see that. Set load to eager."
            )
    warnings = (_BALLOON,) if cannot_shrink(options_of(launch.own_argv[1:])) else ()
    return Check(name, UNKNOWN if problems else YES, tuple(problems), warnings)


def check_reader(
    path: str, status: os.stat_result, surroundings: Surroundings | None, *, has_access_list: bool
) -> Check:
    """Whether the user that QEMU starts as can open the image: it maps it by its name."""
    name = "image_readable"
    if surroundings is None or surroundings.user_id in (0, status.st_uid):
        return Check(name, YES)
    if has_access_list:
        return Check(name, UNKNOWN)
    groups = {surroundings.group_id, *surroundings.groups}
    needed = stat.S_IRGRP if status.st_gid in groups else stat.S_IROTH
    if status.st_mode & needed:
        return Check(name, YES)
    user = surroundings.user_id
    return Check(
        name,
        UNKNOWN,
        (
            f"QEMU runs as user {user}, who cannot read {path}, and lazily it maps the image "
            f"itself. Let it (setfacl -m u:{user}:r {path}), or set load to eager.",
        ),
    )


def _listed(fd: int) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(fd)
    except OSError:
        return False
