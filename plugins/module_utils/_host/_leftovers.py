# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What lies in a store beside images that may be restored: unfinished files, and stale images."""

from __future__ import annotations

import os
import typing as t

from .._errors import Refused
from .._image_info import list_images
from .._saveimage._lock import lock_holder
from ._guests import HostGuest

UNFINISHED = "unfinished"
STALE = "stale"
_PARTIAL = ".partial"


def leftovers(store: str, guests: t.Sequence[HostGuest]) -> list[dict[str, t.Any]]:
    """Each with its path, what it is, its guest where that is known, and the pid of the run that
    holds it, None where none does. Empty where there is no store. Raises `Refused` where it cannot
    be looked into."""
    running = {guest.uuid: guest.name for guest in guests if guest.uuid is not None}
    images = {image["path"]: image for image in list_images(store, read_memory_map=False).images}
    found = []
    for path in _hidden(store):
        image = images.get(path, {})
        holder = _holder(path)
        what = (
            f"it is being written by the run {holder}"
            if holder is not None
            else "a run that died left it; the same save finishes or undoes it"
        )
        found.append(_leftover(path, UNFINISHED, what, image, holder))
    for path, image in images.items():
        name = running.get(str(image.get("uuid")))
        if image.get("state") == "ready" and name is not None:
            what = f"{name} runs, and not from this image; restoring it would corrupt its disks"
            found.append(_leftover(path, STALE, what, image, _holder(path)))
    return found


def _leftover(
    path: str, kind: str, what: str, image: t.Mapping[str, t.Any], holder: int | None
) -> dict[str, t.Any]:
    return {
        "path": path,
        "kind": kind,
        "what": what,
        "name": image.get("name"),
        "uuid": image.get("uuid"),
        "held_by_pid": holder,
    }


def _hidden(store: str) -> list[str]:
    try:
        names = sorted(os.listdir(store))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise Refused(f"{store} cannot be read: {exc.strerror}.") from exc
    return [
        os.path.join(store, name)
        for name in names
        if name.startswith(".") and name.endswith(_PARTIAL)
    ]


def _holder(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return lock_holder(fd)
    finally:
        os.close(fd)
