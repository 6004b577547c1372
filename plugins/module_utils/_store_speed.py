# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a measurement of the store says about a save or a restore, where nothing was asked for."""

from __future__ import annotations

import os
import threading
import typing as t

from ._errors import StoreError
from ._measured import Figures, Measured, choose
from ._saveimage._probe import MOST_BYTES, measure
from ._saveimage._store_figures import identity, keep, kept
from ._uninterrupted import in_thread

# Below this a measurement costs more than it saves; what is kept costs nothing.
WORTH_BYTES = 1 << 30
# That a store which is nearly full is not filled by being measured.
_FREE_BYTES = 4 * MOST_BYTES
# Guests that are at it together would measure one another.
_one_by_one = threading.Lock()


class Wanted(t.Protocol):
    """What a request asks for; None where it is left open."""

    @property
    def path(self) -> str: ...

    @property
    def parallel_channels(self) -> int | None: ...

    @property
    def bypass_cache(self) -> bool | None: ...


def for_saving(path: str, qemu: str, size_bytes: int, *, may_measure: bool) -> Measured | None:
    """How to write an image at ``path``; None where nothing is known and nothing may be measured,
    or ``size_bytes`` are too few for that. Takes a second or two: to be called in a thread."""
    figures = figures_of(path, qemu, size_bytes, may_measure=may_measure)
    return choose(figures.write) if figures is not None else None


def for_restoring(path: str, qemu: str, size_bytes: int, *, may_measure: bool) -> Measured | None:
    """As `for_saving`, for reading an image."""
    figures = figures_of(path, qemu, size_bytes, may_measure=may_measure)
    return choose(figures.read) if figures is not None else None


async def known_speed(
    request: Wanted,
    way: t.Callable[..., Measured | None],
    hypervisor: str,
    size_bytes: int,
    *,
    may_measure: bool,
) -> Measured | None:
    """By ``way``, `for_saving` or `for_restoring`; None where the request leaves nothing open."""
    if None not in (request.parallel_channels, request.bypass_cache):
        return None
    path = request.path
    return await in_thread(lambda: way(path, hypervisor, size_bytes, may_measure=may_measure))


def figures_of(path: str, qemu: str, size_bytes: int, *, may_measure: bool) -> Figures | None:
    """The kept measurement of the store of ``path``, or a new one."""
    directory = os.path.dirname(path)
    try:
        store = identity(directory, qemu)
        with _one_by_one:
            known = kept(store)
            worth_it = may_measure and size_bytes >= WORTH_BYTES
            if known is not None or not worth_it or _free_bytes(directory) < _FREE_BYTES:
                return known
            figures = measure(directory, len(os.sched_getaffinity(0)))
            keep(store, figures)
            return figures
    except (OSError, StoreError):
        return None  # the save itself will tell what is wrong with the store


def _free_bytes(directory: str) -> int:
    store = os.statvfs(directory)
    return store.f_bavail * store.f_frsize
