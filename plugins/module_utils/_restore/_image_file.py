# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The image of a restore, opened and locked, whether or not a guest runs from it."""

from __future__ import annotations

import os

from .._errors import Refused
from .._image_record import describe
from .._qemu._process import is_alive
from .._saveimage._lock import lock_image
from .._saveimage._protection import IMMUTABLE, lift, protection


def open_image(path: str, *, write: bool, check_mode: bool) -> int:
    """Open and lock; returns the fd, which the caller closes. Raises as `lock_image`, and `Refused`
    for an image that is to be written and that somebody has made immutable.

    An image that is protected because a guest runs from it is opened for reading only: all that is
    to be written into it has been. When that guest is gone, the protection goes first. A protection
    that is not a restore's own stays; root writes a file whose mode alone forbids it.
    """
    fd = lock_image(path, write=False)
    try:
        protected = protection(fd) if write else None
        holder = describe(fd, path).loaded_into if protected is not None else None
        if holder is not None and is_alive(holder):
            return fd
        if holder is None and protected == IMMUTABLE:
            raise Refused(
                f"{path} is immutable, and no restore made it so. A restore must mark it as spent "
                f"before its guest runs: allow that (chattr -i {path}), or restore a copy.",
                path=path,
            )
        if not write or check_mode:
            return fd
        if holder is not None:
            lift(fd, path)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return lock_image(path, write=True)
