# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The result of a suspend or resume of a host, for the run, for check mode and for diff."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._errors import VmfleetError
from ._guests import Source
from ._plan import rounded


class HostFailed(VmfleetError):
    """A run that had begun did not do all that was asked; the facts say how far each guest is."""


@dataclass
class GuestResult:
    """What became of one guest. ``state``: in the journal's words; ``guest_state``: QEMU's run
    state or libvirt's word, ``stopped`` and ``absent`` where no QEMU holds it; ``image``: as the
    single modules return it; ``clock`` and ``ready``: of a guest that was resumed;
    ``began_seconds``: after the run began, None where nothing was begun."""

    name: str
    uuid: str | None
    source: Source
    action: str
    reason: str
    state: str
    guest_state_before: str
    guest_state: str
    changed: bool = False
    error: str | None = None
    stale_image: str | None = None
    image_before: t.Mapping[str, t.Any] | None = None
    image: dict[str, t.Any] = field(default_factory=dict)
    bytes: int | None = None
    predicted_seconds: float | None = None
    began_seconds: float | None = None
    actual_seconds: float | None = None
    stopped_seconds: float | None = None
    actions: tuple[str, ...] = ()
    clock: t.Mapping[str, t.Any] | None = None
    ready: t.Mapping[str, t.Any] | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {
            "name": self.name,
            "uuid": self.uuid,
            **self.source.as_dict(),
            "action": self.action,
            "reason": self.reason,
            "state": self.state,
            "guest_state": self.guest_state,
            "changed": self.changed,
            "error": self.error,
            "stale_image": self.stale_image,
            "image": self.image,
            "bytes": self.bytes,
            "predicted_seconds": rounded(self.predicted_seconds),
            "began_seconds": rounded(self.began_seconds),
            "actual_seconds": rounded(self.actual_seconds),
            "stopped_seconds": rounded(self.stopped_seconds),
            "actions": list(self.actions),
            "clock": self.clock,
            "ready": self.ready,
        }


@dataclass(frozen=True)
class HostOutcome:
    """What a run did, or in check mode would do. ``journal``: as it is now."""

    changed: bool
    message: str
    reason: str
    guests: tuple[GuestResult, ...]
    plan: t.Mapping[str, t.Any]
    journal: t.Mapping[str, t.Any] | None
    actions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    duration_seconds: float = 0.0

    def as_result(self) -> dict[str, t.Any]:
        """Keys as documented under RETURN of the host modules."""
        return {
            "changed": self.changed,
            "msg": self.message,
            "reason": self.reason,
            "guests": [guest.as_dict() for guest in self.guests],
            "images": sorted(guest.image["path"] for guest in self.guests if guest.image),
            "plan": dict(self.plan),
            "journal": dict(self.journal) if self.journal is not None else None,
            "actions": list(self.actions),
            "duration_seconds": rounded(self.duration_seconds),
            "diff": diff_of(self.guests),
        }


def diff_of(guests: t.Iterable[GuestResult]) -> dict[str, t.Any]:
    """State and image of every guest that changes, before and after."""
    before, after = {}, {}
    for guest in guests:
        if guest.changed:
            name = f"{guest.name} ({guest.uuid})" if guest.uuid else guest.name
            image = {
                key: guest.image[key]
                for key in ("path", "version", "image_format", "layout", "state")
                if key in guest.image
            }
            before[name] = {"guest_state": guest.guest_state_before, "image": guest.image_before}
            after[name] = {"guest_state": guest.guest_state, "image": image or None}
    return {"before": before, "after": after}
