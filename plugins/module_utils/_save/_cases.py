# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Finding what runs that died have left: in the store and in QEMU."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, replace

from .._errors import Refused
from .._qemu._bookmark import RESTORE, Found, find_bookmarks
from .._qemu._guest import Guest
from .._qemu._monitor import Monitor
from .._saveimage._publish import PartialImage, target_of
from ._leftover import THIS, Leftover, places, read_leftover, remembered_only
from ._planning import wanted_kind
from ._recovery import Decision, Remedy, decide
from ._request import SaveRequest
from ._resume import guest_before


@dataclass(frozen=True)
class Case:
    """One leftover, what is to be done about it, and its file, locked; None when it is gone."""

    leftover: Leftover
    decision: Decision
    image: PartialImage | None

    @property
    def ends_the_run(self) -> bool:
        """Whether the remedy is the save that was asked for."""
        return self.decision.remedy in (Remedy.FINISH, Remedy.LEAVE)

    @property
    def is_left_by_a_dead_run(self) -> bool:
        """False for a guest that its save was asked to leave held by QEMU."""
        leftover = self.leftover
        return not leftover.published or leftover.fdset_id is not None

    def facts(self) -> dict[str, str] | None:
        """As a plan shows it."""
        if not self.is_left_by_a_dead_run:
            return None
        return {
            "path": self.leftover.path,
            "remedy": self.decision.remedy.value,
            "reason": self.decision.reason,
        }

    def close(self) -> None:
        """Release the file's lock."""
        if self.image is not None:
            self.image.close()


async def next_case(request: SaveRequest, monitor: Monitor, guest: Guest) -> Case | None:
    """The first leftover that calls for a remedy; the caller closes it.

    Raises `ImageLocked` while the run it belongs to lives, `Refused` where only the operator can
    decide.
    """
    found = await find_bookmarks(monitor)
    for item in found:
        if item.bookmark.doing == RESTORE:
            if guest.run_state == "running":
                return _of_a_restore(item)
            raise Refused(
                f"A restore of {item.bookmark.path} into the QEMU on {request.qmp_socket} was "
                "begun by a run that died. Run that restore again, or end this QEMU."
            )
    seen: set[int] = set()
    for path in places(request.path, found):
        # A published image matters while QEMU still holds its guest, or remembers its save.
        hidden = path != target_of_either(path)
        if not (hidden or found or guest.run_state == "postmigrate"):
            continue
        case = _look(request, path, guest, found, seen)
        if case is not None:
            return case
    for item in found:
        if item.fdset_id not in seen:
            leftover = remembered_only(item)
            return Case(leftover, _decide(request, leftover, guest), None)
    return None


def _of_a_restore(found: Found) -> Case:
    """A restore that died, and whose guest somebody continued: only its traces are in QEMU."""
    leftover = replace(remembered_only(found), target=found.bookmark.path, published=True)
    return Case(leftover, Decision(Remedy.TIDY, "its guest runs since it was restored"), None)


def target_of_either(path: str) -> str:
    """The target, whichever of an image's two names ``path`` is."""
    name = path.rpartition("/")[2]
    return target_of(path) if name.startswith(".") and name.endswith(".partial") else path


def _look(
    request: SaveRequest, path: str, guest: Guest, found: t.Sequence[Found], seen: set[int]
) -> Case | None:
    image = PartialImage.adopt(target_of_either(path), path)
    if image is None:
        return None
    try:
        leftover = read_leftover(image, guest, found)
        if leftover is not None:
            if leftover.fdset_id is not None:
                seen.add(leftover.fdset_id)
            decision = _decide(request, leftover, guest)
            if decision.remedy is not Remedy.NOTHING:
                kept, image = image, None
                return Case(leftover, decision, kept)
        return None
    finally:
        if image is not None:
            image.close()


def _decide(request: SaveRequest, leftover: Leftover, guest: Guest) -> Decision:
    kind = wanted_kind(request)
    wanted = (leftover.target, leftover.version, leftover.image_format) == (
        request.path,
        kind.version,
        kind.image_format,
    )
    known = leftover.uuid is not None and guest.uuid is not None
    socket = os.path.abspath(guest.qmp_socket)
    return decide(
        leftover,
        guest.run_state,
        guest.migration_status,
        wanted=wanted,
        same_guest=leftover.uuid == guest.uuid if known else leftover.qmp_socket == socket,
    )


def guest_after(case: Case, guest: Guest) -> Guest:
    """What check mode plans from: the guest as it will be when the remedy was applied."""
    if case.leftover.owner != THIS:
        return guest
    after = guest_before(case.leftover, guest)
    return replace(after, run_state=guest.run_state) if tidies(case) else after


def tidies(case: Case) -> bool:
    """Whether only traces are left, and the guest is not touched."""
    return case.decision.remedy is Remedy.TIDY
