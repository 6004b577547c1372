# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Stores that take root for somebody else (root squash): who may have images there.

libvirt becomes QEMU's user on such a store and creates the file with mode 0660. Here it is refused:
the group could read the guest's RAM, and QEMU itself could remove or replace the image.
"""

from __future__ import annotations

import contextlib
import os

from ._store_kind import Mount, is_remote, mount_of

_ROOT = 0


def squash_advice(mount: Mount | None, owner_id: int, user_id: int) -> str:
    """What to do when ``mount`` denied a file or directory of ``owner_id`` to ``user_id``; empty
    where the refusal needs no explanation."""
    if user_id != _ROOT or mount is None or not is_remote(mount):
        return ""
    return (
        f" It lies on {mount.source} ({mount.kind}), which does not take root for root (root "
        f"squash). Run this as the user who owns it, user {owner_id} (become_user), who must reach "
        "QEMU's monitor too; or export it with no_root_squash; or use a store of this host. It is "
        "not made readable for a group instead: an image holds the guest's memory."
    )


def advice_for(path: str) -> str:
    """`squash_advice` for what was denied at ``path``, or in the first directory above that can be
    looked at."""
    while True:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                return squash_advice(mount_of(fd), os.fstat(fd).st_uid, os.geteuid())
            finally:
                os.close(fd)
        above = os.path.dirname(path) or "."
        if above == path:
            return ""
        path = above


def owner_warning(path: str, owner_id: int, user_id: int) -> tuple[str, ...]:
    """About a file that ``user_id`` has just created and ``owner_id`` owns."""
    if owner_id == user_id:
        return ()
    return (
        f"{path} belongs to user {owner_id} and not to user {user_id}, who created it: its store "
        "maps users, and whoever it maps to the same one can read the image.",
    )
