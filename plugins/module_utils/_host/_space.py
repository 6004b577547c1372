# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Room for the images of a run, held in their stores until they need it themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import types

from .._saveimage._publish import partial_path
from ._ballast import Ballast
from ._plan import GuestPlan, HostPlan
from ._wishes import SAVE

_LOOK_SECONDS = 0.1
_SECTOR_BYTES = 512
# What a save that is under way finds free ahead of it: more than a fast store takes between two
# looks.
_AHEAD_BYTES = 1 << 30
# What is left to others that write into the same filesystem, as the guests' own disks may.
_MOST_OF_FREE = 0.95


def still_held(claimed_bytes: int, landed_bytes: int) -> int:
    """What is held for a save that is under way."""
    return max(0, claimed_bytes - landed_bytes - _AHEAD_BYTES)


class Space:
    """A context: what is claimed is held from its beginning on. A store that cannot hold space is
    a warning; one that has too little raises `StoreError`."""

    def __init__(self, plan: HostPlan, warnings: list[str]) -> None:
        self._plan = plan
        self._warnings = warnings
        self._saves = {one.key: one for one in plan.guests if one.action == SAVE}
        self._under_way: set[str] = set()
        self._ballasts: dict[int, Ballast] = {}

    def __enter__(self) -> Space:
        try:
            for store in self._plan.stores:
                most = int(store.free_bytes * _MOST_OF_FREE)
                needed = min(self._plan.needed_bytes(store.device), most)
                if needed <= 0:
                    continue
                ballast = Ballast.hold(store.path, needed)
                self._ballasts[store.device] = ballast
                if ballast.why_not is not None:
                    self._warnings.append(
                        f"Space in {store.path} was counted and not held: {ballast.why_not}."
                    )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        for ballast in self._ballasts.values():
            ballast.close()

    def begin(self, key: str) -> None:
        """A save begins: what it needs first is let go."""
        self._under_way.add(key)
        self._settle()

    def done(self, key: str) -> None:
        """A save is over: nothing is held for it any more."""
        self._under_way.discard(key)
        self._saves.pop(key, None)
        self._settle()

    async def watch(self) -> None:
        """Let go of what has landed, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._settle()

    def _settle(self) -> None:
        for device, ballast in self._ballasts.items():
            wanted = sum(
                self._held_for(one) for one in self._saves.values() if one.seen.device == device
            )
            if wanted < ballast.held_bytes:
                ballast.release(ballast.held_bytes - wanted)

    def _held_for(self, one: GuestPlan) -> int:
        claimed = one.seen.at_most_bytes
        if one.key not in self._under_way:
            return claimed
        return still_held(claimed, _landed(one.seen.path))


def _landed(path: str | None) -> int:
    """Bytes of an image that is being written, under its hidden name."""
    if path is not None:
        with contextlib.suppress(OSError):
            return os.stat(partial_path(path)).st_blocks * _SECTOR_BYTES
    return 0
