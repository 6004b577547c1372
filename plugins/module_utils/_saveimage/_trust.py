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
        return _unsafe(path, found)
    try:
        whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
        return _distrusted_way(whole, status, user_id)
    except OSError as exc:
        return (
            f"The way to {path} cannot be followed: {exc.strerror} "
            f"({exc.filename or 'working directory'}). Look whether somebody moved it."
        )


def _distrusted_way(path: str, image: os.stat_result, user_id: int) -> str | None:
    """Follow ``path`` component by component, as the kernel does. Raises `OSError`."""
    at, left, links = "/", _parts(path), 0
    while True:
        status = os.lstat(at)
        found = weakness(status.st_mode, status.st_uid, user_id)
        if found is not None:
            return _unsafe(at, found)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return f"The way to {path} leads through too many symlinks, the last of them {at}."
            target = os.readlink(at)
            at = "/" if target.startswith("/") else os.path.dirname(at)
            left = _parts(target) + left
        if not left:
            break
        part = left.pop(0)
        # No symlink is left in ``at``: its parent is the directory that contains it.
        at = os.path.dirname(at) if part == os.pardir else os.path.join(at, part)
    if not os.path.samestat(status, image):
        return (
            f"At {path} lies another file by now than the image that was opened. Look who put it "
            "there."
        )
    return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", os.curdir)]


def _unsafe(path: str, why: str) -> str:
    return (
        f"{path} is not safe: {why}. Give it to root or to this user (chown), alone (chmod go-w)."
    )
