# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The result of a restore, for the run, for check mode and for diff."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._image_record import SavedImage
from .._qemu._migration import MigrationReport
from .._qemu._prefetcher import Prefetched
from .._result_parts import negotiated_result, sizes_result
from .._saveimage._verify import Structure
from ._plan import RestorePlan
from ._presence import Presence


@dataclass(frozen=True)
class RestoreOutcome:
    """What a restore did, or in check mode would do.

    States of the guest are QEMU's run states, or ``absent``; the image's are ready, spent and
    removed. ``saved``, ``structure``: None where libvirt's managed save is gone; ``guest``: name
    and UUID then; ``qmp_socket``: its monitor; ``presence``: once its vCPUs ran.
    """

    changed: bool
    message: str
    plan: RestorePlan
    saved: SavedImage | None
    structure: Structure | None
    state_before: str
    state_after: str
    image_state_after: str
    pid: int | None = None
    migration: MigrationReport | None = None
    prefetched: Prefetched | None = None
    duration_seconds: float = 0.0
    actions: tuple[str, ...] = ()
    guest: tuple[str | None, str | None] = (None, None)
    qmp_socket: str | None = None
    presence: Presence | None = None

    def as_result(self) -> dict[str, t.Any]:
        """Keys as documented under RETURN of qemu_restore."""
        before = after = None
        name, uuid = self.guest
        if self.saved is not None:
            before = self.saved.identity()
            after = dict(before, state=self.image_state_after)
            name, uuid = self.saved.name, self.saved.uuid
        result: dict[str, t.Any] = {
            "changed": self.changed,
            "msg": self.message,
            "reason": self.plan.reason,
            "actions": list(self.actions),
            "guest": {
                "name": name,
                "uuid": uuid,
                "pid": self.pid,
                "state": self.state_after,
            },
            "image": dict(after or {"path": self.plan.path, "state": self.image_state_after}),
            "plan": self.plan.as_dict(),
            "duration_seconds": self.duration_seconds,
            "diff": {
                "before": {"guest_state": self.state_before, "image": before},
                "after": {"guest_state": self.state_after, "image": after},
            },
        }
        if self.structure is not None:
            result["image"].update(sizes_result(self.structure))
        if self.plan.negotiated is not None:
            result["negotiated"] = negotiated_result(self.plan.negotiated)
        if self.migration is not None:
            result["migration"] = {"total_seconds": self.migration.total_seconds}
        if self.prefetched is not None:
            result["prefetch"] = self.prefetched.as_dict()
        if self.presence is not None:
            result.update(self.presence.as_dict())
        return result
