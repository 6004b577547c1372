# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The image of a restore, opened and locked, whether or not a guest runs from it."""

from __future__ import annotations

import os

from .._image_record import describe
from .._qemu._process import is_alive
from .._saveimage._lock import lock_image
from .._saveimage._protection import lift, protection


def open_image(path: str, *, write: bool) -> int:
    """Open and lock; returns the fd, which the caller closes. Raises as `lock_image`.

    An image that is protected because a guest runs from it is opened for reading only: all that is
    to be written into it has been. When that guest is gone, the protection goes first.
    """
    fd = lock_image(path, write=False)
    try:
        if not write:
            return fd
        if protection(fd) is not None:
            holder = describe(fd, path).loaded_into
            if holder is not None and is_alive(holder):
                return fd
            lift(fd, path)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return lock_image(path, write=True)
