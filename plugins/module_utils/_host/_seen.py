# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What was seen of a host before a suspend of it: its guests, and the stores of their images."""

from __future__ import annotations

from dataclasses import dataclass

from .._save._plan import SavePlan
from ._guests import HostGuest
from ._wishes import Wish


@dataclass(frozen=True)
class Store:
    """A filesystem that images go to. ``device``: its st_dev; ``rate``: bytes per second and guest
    of past saves, None where there were none; ``speed``: bytes per second of the store as it was
    measured, None where it was not."""

    device: int
    path: str
    free_bytes: int
    rate: float | None
    speed: float | None = None

    def rate_beside(self, others: int) -> float | None:
        """Bytes per second of one save beside ``others``: past ones say best."""
        if self.rate is None and self.speed is not None:
            return self.speed / (others + 1)
        return self.rate


@dataclass(frozen=True)
class Seen:
    """A guest and what the plan of its own save said. ``save``: None where that refused, with its
    words in ``refusal``; ``path``: where its image would go; ``device``: that store's."""

    guest: HostGuest
    wish: Wish
    path: str | None
    device: int
    save: SavePlan | None
    refusal: str | None = None

    @property
    def at_most_bytes(self) -> int:
        """What its image takes at most, by what is resident where that can be told."""
        bound = self.save.at_most_bytes if self.save is not None else 0
        estimate = self.guest.estimated_bytes
        return min(bound, estimate) if estimate is not None else bound
