# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The result of a save, for the run, for check mode and for diff."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from .._image_record import SavedImage
from .._qemu._migration import MigrationReport
from .._result_parts import negotiated_result, sizes_result
from .._saveimage._verify import Structure
from ._plan import SavePlan
from ._session import SaveSession


@dataclass(frozen=True)
class SaveOutcome:
    """What a save did, or in check mode would do. ``structure`` and what follows it are None
    where nothing was written."""

    changed: bool
    message: str
    reason: str
    name: str | None
    uuid: str | None
    pid: int | None
    state_before: str
    state_after: str
    image_before: SavedImage | None
    image_state: str | None
    plan: SavePlan | None = None
    structure: Structure | None = None
    verified: str | None = None
    verified_before_quit: bool = True
    migration: MigrationReport | None = None
    stopped_seconds: float = 0.0
    duration_seconds: float = 0.0
    actions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    image_after: SavedImage | None = None

    def as_result(self) -> dict[str, t.Any]:
        """Keys as documented under RETURN of qemu_save."""
        before = self.image_before.identity() if self.image_before else None
        after = self._image_identity() if self.changed else before
        result: dict[str, t.Any] = {
            "changed": self.changed,
            "msg": self.message,
            "reason": self.reason,
            "actions": list(self.actions),
            "guest": {
                "name": self.name,
                "uuid": self.uuid,
                "pid": self.pid,
                "state": self.state_after,
            },
            "image": dict(after or {}),
            "duration_seconds": self.duration_seconds,
            "diff": {
                "before": {"guest_state": self.state_before, "image": before},
                "after": {"guest_state": self.state_after, "image": after},
            },
        }
        if self.plan is not None:
            result["plan"] = self.plan.as_dict()
            result["negotiated"] = negotiated_result(self.plan.negotiated)
        if self.structure is not None:
            result["image"].update(
                sizes_result(self.structure),
                verified=self.verified,
                verified_before_quit=self.verified_before_quit,
            )
        if self.migration is not None:
            result["migration"] = {
                "transferred_bytes": self.migration.transferred_bytes,
                "total_seconds": self.migration.total_seconds,
                "stopped_seconds": self.stopped_seconds,
                "throughput_bytes_per_second": self.migration.throughput_bytes_per_second,
            }
        return result

    def _image_identity(self) -> dict[str, t.Any] | None:
        if self.plan is None:
            return self.image_after.identity() if self.image_after else None
        return {
            "path": self.plan.path,
            "version": self.plan.kind.version,
            "image_format": self.plan.kind.image_format,
            "layout": self.plan.kind.layout,
            "state": self.image_state,
        }


def saved(
    session: SaveSession,
    existing: SavedImage | None,
    *,
    started: float,
    state_before: str,
    state: str,
    image_state: str,
    structure: Structure | None = None,
    verified: str | None = None,
    migration: MigrationReport | None = None,
    changed: bool = True,
) -> SaveOutcome:
    """The outcome of a save that is over. ``started`` is monotonic time; what a run that died did
    and measured before this one took over is not known any more."""
    plan, now = session.plan, time.monotonic()
    stopped_at = session.stopped_at if session.stopped_at is not None else started
    return SaveOutcome(
        changed=changed,
        message=f"Saved {plan.name} to {plan.path}."
        if changed
        else f"{plan.name} was saved to {plan.path} before.",
        reason=plan.recovers["reason"] if plan.recovers else f"{plan.name} was {state_before}",
        name=plan.name,
        uuid=plan.uuid,
        pid=session.guest.process.pid if session.guest.process and state != "stopped" else None,
        state_before=state_before,
        state_after=state,
        image_before=existing,
        image_state=image_state,
        plan=plan,
        structure=structure,
        verified=verified,
        migration=migration,
        stopped_seconds=round(now - stopped_at, 3),
        duration_seconds=round(now - started, 3),
        actions=tuple(session.actions),
        warnings=plan.warnings + tuple(session.warnings),
    )
