# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is of a guest: its run state, and its images in a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import describe_target
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

ENDED = "ended"


@dataclass(frozen=True)
class Scene:
    """``guest``: its run state, or ended; ``images``: the state of each file in the store, the
    hidden ones as ``unfinished``, unless their state says otherwise; ``none`` without any."""

    guest: str
    images: str

    @property
    def is_safe(self) -> bool:
        """Whether no vCPU runs while an image of the same guest could be restored."""
        return not (self.guest == "running" and "ready" in self.images)


def look_around(guest: TinyGuest, store: Path) -> Scene:
    """The scene now."""
    names = sorted(path.name for path in store.iterdir())
    images = [_state(store / name) for name in names]
    return Scene(guest.status() if guest.alive() else ENDED, ", ".join(images) or "none")


def _state(path: Path) -> str:
    hidden = path.name.startswith(".")
    try:
        image = describe_target(str(path))
    except Refused:
        return "unfinished" if hidden else "damaged"
    assert image is not None
    if not hidden:
        return image.state
    return "unfinished" if image.state == "partial" else f"{image.state}, not named yet"
