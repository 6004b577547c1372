# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The image that a save is going to replace."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import Refused
from .._image_record import SPENT_BY, SPENT_BY_SUCCESSOR, SavedImage, describe
from .._saveimage._life import mark_spent
from .._saveimage._lock import lock_image


@contextlib.contextmanager
def held(existing: SavedImage | None) -> t.Iterator[int | None]:
    """Keep a restore from using the image that is about to be replaced; gives its locked fd."""
    if existing is None:
        yield None
        return
    fd = lock_image(existing.path, write=existing.state == "ready")
    try:
        if describe(fd, existing.path) != existing:
            raise Refused(f"{existing.path} changed while the save was being planned; run again.")
        yield fd
    finally:
        os.close(fd)


def spend(existing: SavedImage, fd: int) -> list[str]:
    """The guest has run since its older image was taken: should QEMU die in this save, nobody may
    restore that one. Returns what was done."""
    if existing.state != "ready":
        return []
    mark_spent(fd, existing.path, {SPENT_BY: SPENT_BY_SUCCESSOR})
    return [f"marked the older image {existing.path} spent"]
