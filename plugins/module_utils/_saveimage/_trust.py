# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether anybody else could have written an image: the command line in it is code.

Asked of the image and of every directory and symlink on the way to it, as sshd asks of its keys.
POSIX ACLs that let others write show in the group's bits (acl(5), the mask).
"""

from __future__ import annotations

import os
import stat

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40


def weakness(mode: int, owner: int, user_id: int) -> str | None:
    """Why a file, directory or symlink with this mode is not for ``user_id`` and root alone; None
    when it is. Whoever owns an entry of a sticky directory is the only one to replace it."""
    if owner not in (_ROOT, user_id):
        return f"it belongs to user {owner}"
    if stat.S_ISLNK(mode) or not mode & _OTHERS_WRITE:
        return None
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    return f"others may write to it (mode {stat.S_IMODE(mode):04o})"


def distrust(fd: int, path: str, user_id: int) -> str | None:
    """Why the image open as ``fd`` could hold what somebody else wrote; None when it could not.

    A sentence naming the first file or directory that is to blame, and what to do about it.
    """
    status = os.fstat(fd)
    found = weakness(status.st_mode, status.st_uid, user_id)
    if found is not None:
        return _sentence(path, found)
    return _distrusted_way(os.path.abspath(path), status, user_id)


def _distrusted_way(path: str, image: os.stat_result, user_id: int) -> str | None:
    """Follow ``path`` component by component, as the kernel does."""
    at, left, links = "/", [part for part in path.split("/") if part], 0
    status = os.lstat(at)
    while True:
        found = weakness(status.st_mode, status.st_uid, user_id)
        if found is not None:
            return _sentence(at, found)
        if not left:
            break
        at = os.path.join(at, left.pop(0))
        status = os.lstat(at)
        if stat.S_ISLNK(status.st_mode):
            found = weakness(status.st_mode, status.st_uid, user_id)
            links += 1
            if found is not None or links > _MOST_LINKS:
                return _sentence(at, found or "it leads through too many symlinks")
            target = os.path.normpath(os.path.join(os.path.dirname(at), os.readlink(at)))
            at, left = "/", [*(part for part in target.split("/") if part), *left]
            status = os.lstat(at)
    if not os.path.samestat(status, image):
        return _sentence(path, "another file has taken its place")
    return None


def _sentence(path: str, why: str) -> str:
    return (
        f"{path} is not safe: {why}. Give it to root or to this user (chown), alone (chmod go-w)."
    )
