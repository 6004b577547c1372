# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What the operator wants of single guests: option ``guests``, looked up by name or UUID."""

from __future__ import annotations

import fnmatch
import typing as t
from dataclasses import dataclass, field

from .._errors import Refused
from ._guests import HostGuest

SAVE, SHUTDOWN, LEAVE, FAIL = "save", "shutdown", "leave", "fail"
POLICIES = (SAVE, SHUTDOWN, LEAVE, FAIL)


@dataclass(frozen=True)
class Wish:
    """What is wanted of one guest. ``policy``: what happens to it where it cannot be saved, or not
    within the window; None is ``fail``. ``save`` and ``restore``: options of the single-guest
    modules, only those that were given; ``ready_check``: as qemu_restore's, for a resume."""

    name: str
    priority: int = 0
    depends_on: tuple[str, ...] = ()
    group: str | None = None
    policy: str | None = None
    save: t.Mapping[str, t.Any] = field(default_factory=dict)
    restore: t.Mapping[str, t.Any] = field(default_factory=dict)
    ready_check: t.Mapping[str, t.Any] | None = None


class Wishes:
    """All of them. Raises `Refused` for two about the same guest."""

    def __init__(self, wishes: t.Sequence[Wish] = ()) -> None:
        self._by_name: dict[str, Wish] = {}
        for wish in wishes:
            if wish.name in self._by_name:
                raise Refused(f"Option guests names {wish.name} twice. Merge the two entries.")
            self._by_name[wish.name] = wish

    def of(self, guest: HostGuest) -> Wish:
        """The one about this guest, by its name or UUID; an empty one without. Raises `Refused`
        where one names it and another its UUID."""
        found = [self._by_name[key] for key in (guest.name, guest.uuid) if key in self._by_name]
        if len(found) > 1:
            raise Refused(
                f"Option guests names {guest.name} by its name and by its UUID {guest.uuid}. Merge "
                "the two entries."
            )
        return found[0] if found else Wish(guest.name)

    def not_here(self, guests: t.Iterable[HostGuest]) -> tuple[str, ...]:
        """Names that no guest of this host has; one list may serve a whole fleet."""
        here = {name for guest in guests for name in (guest.name, guest.uuid)}
        return tuple(name for name in self._by_name if name not in here)


def selected(
    name: str, uuid: str | None, include: t.Sequence[str], exclude: t.Sequence[str]
) -> bool:
    """Whether a guest is meant: by shell patterns on its name, case told apart, or by its whole
    UUID; no ``include`` means all, and ``exclude`` has the last word."""

    def named(patterns: t.Sequence[str]) -> bool:
        known = (uuid or "").lower()
        return any(
            fnmatch.fnmatchcase(name, pattern) or (known != "" and pattern.lower() == known)
            for pattern in patterns
        )

    return (not include or named(include)) and not named(exclude)
