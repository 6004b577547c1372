# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Giving a whole image, which a dead run left under its hidden name, the name it was made for."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import Refused
from .._image_record import describe_target
from .._saveimage._lock import lock_image
from .._saveimage._publish import PartialImage
from ._leftover import READY, Leftover


@contextlib.contextmanager
def name_held(leftover: Leftover, *, overwrite: bool) -> t.Iterator[None]:
    """Keep whatever has the image's name from being used while it is replaced.

    Raises `Refused` when it is a ready image: the one that the dead run was to replace was spent
    before, so this one came since.
    """
    there = describe_target(leftover.target)
    if there is None:
        yield
        return
    if there.state == READY and not overwrite:
        raise Refused(
            f"{leftover.path} is an image of {leftover.name or 'a guest'}, left by a run that "
            f"died; its name {leftover.target} is taken by a ready image of "
            f"{there.name or 'a guest'}. Move one of them, then run again."
        )
    fd = lock_image(leftover.target, write=False)
    try:
        yield
    finally:
        os.close(fd)


def give_name(image: PartialImage, leftover: Leftover, *, overwrite: bool) -> None:
    """Publish a whole image that only lacks its name. Raises as `name_held`."""
    with name_held(leftover, overwrite=overwrite):
        image.give_name()
