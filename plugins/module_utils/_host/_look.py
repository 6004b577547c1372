# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Looking at a host before a suspend: its guests, what each one's own save says, its stores."""

from __future__ import annotations

import os
import typing as t
from collections import Counter
from dataclasses import replace

from .._errors import Refused, VmfleetError
from .._failure import words_of
from .._store_speed import for_saving
from ._forecast import rate
from ._guests import HostGuest
from ._journal import Journal
from ._requests import (
    DISABLE,
    MANAGED,
    SuspendRequest,
    image_path,
    restore_request,
    save_request,
)
from ._seen import Seen, Store
from ._single import save_one
from ._together import at_most

AT_ONCE = 32


async def look_at(
    request: SuspendRequest, guests: t.Sequence[HostGuest], own_units: t.Collection[str | None]
) -> list[Seen]:
    """What the plan of each guest's own save says, from the very use case that would run.

    ``own_units``: units that would start their guests by themselves.
    """
    return await at_most(AT_ONCE, [_see(request, guest, own_units) for guest in guests])


async def _see(
    request: SuspendRequest, guest: HostGuest, own_units: t.Collection[str | None]
) -> Seen:
    wish = request.wishes.of(guest)
    if request.competing == DISABLE and guest.unit in own_units:
        # Stopped in place of QEMU, and started for the restore: in force afterwards as before.
        wish = replace(wish, save={"systemd_unit": guest.unit, **wish.save})
    path = None
    try:
        single = save_request(request, guest, wish)
        path = getattr(single, "path", None)
        # What is recorded for its resume must go with it, or no resume ever could.
        managed = bool(wish.save.get(MANAGED))
        restore_request(guest, path or "", {}, wish, managed=managed, run_state=None)
        outcome = await save_one(single, check_mode=True)
        if outcome.plan is None:
            raise Refused(f"it ended while this host was looked at: {outcome.reason}")
    except (VmfleetError, OSError) as exc:
        return Seen(guest, wish, path, _device(path or request.store), None, words_of(exc))
    path = outcome.plan.path
    return Seen(guest, wish, path, _device(path), outcome.plan)


def _device(path: str) -> int:
    """The filesystem of an image's store; 0 where there is none yet."""
    try:
        return os.stat(os.path.dirname(path)).st_dev
    except OSError:
        return 0


def speeds_of(
    request: SuspendRequest, guests: t.Iterable[HostGuest], *, may_measure: bool
) -> dict[str, float]:
    """By directory how fast it takes what all saves at once write, in bytes per second, as far as
    that was or now may be measured. To be called in a thread; before the saves, which would
    disturb it."""
    paths: dict[tuple[str, str], str] = {}
    # What all of them write there says whether a store is worth measuring.
    sizes: Counter[str] = Counter()
    for guest in guests:
        path = request.wishes.of(guest).save.get("path") or image_path(request.store, guest)
        directory = os.path.dirname(path)
        paths[directory, guest.hypervisor] = path
        sizes[directory] += guest.memory_bytes or 0
    speeds: dict[str, float] = {}
    for (directory, hypervisor), path in paths.items():
        measured = for_saving(path, hypervisor, sizes[directory], may_measure=may_measure)
        if measured is not None:
            speeds[directory] = measured.bytes_per_second
    return speeds


def stores_of(
    seen: t.Iterable[Seen], journals: t.Sequence[Journal], speeds: t.Mapping[str, float]
) -> tuple[Store, ...]:
    """Filesystems that the images go to, and how fast past saves were there, else the store."""
    directories: dict[int, str] = {}
    for one in seen:
        if one.save is not None and one.path is not None:
            directories.setdefault(one.device, os.path.dirname(one.path))
    return tuple(
        Store(device, path, _free_bytes(path), measured(path, journals), speeds.get(path))
        for device, path in sorted(directories.items())
    )


def _free_bytes(path: str) -> int:
    try:
        status = os.statvfs(path)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def measured(directory: str, journals: t.Iterable[Journal]) -> float | None:
    """Bytes per second and guest of past saves into a directory; None without any."""
    return rate(
        (entry.bytes, entry.actual_seconds)
        for journal in journals
        for entry in journal.entries
        if os.path.dirname(entry.path) == directory
        and entry.bytes is not None
        and entry.actual_seconds is not None
    )
