# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a restore tells at its end, from what it found and did."""

from __future__ import annotations

import time
from dataclasses import replace

from .._qemu._guest import Guest
from .._qemu._migration import MigrationReport
from ._load import RestoreSession
from ._outcome import RestoreOutcome
from ._plan import RestorePlan
from ._request import RestoreRequest


class Report:
    """``began``: monotonic time of the run's start; ``state_found``: the guest's run state before;
    ``recovers``: what a dead run had left."""

    def __init__(
        self,
        session: RestoreSession,
        request: RestoreRequest,
        began: float,
        *,
        check_mode: bool,
    ) -> None:
        self._began = began
        self._session = session
        self._request = request
        self._check_mode = check_mode
        self.state_found: str | None = None
        self.recovers: dict[str, str] | None = None
        self.qmp_socket: str | None = None

    def planned(self, plan: RestorePlan, guest: Guest | None) -> RestoreOutcome:
        """What would be."""
        if plan.run_afterwards:
            self._session.image_state = "removed" if self._request.remove_image else "spent"
        state = "running" if plan.run_afterwards else "paused"
        return self.outcome(plan, guest, state, changed=True)

    def outcome(
        self,
        plan: RestorePlan,
        guest: Guest | None,
        state: str,
        *,
        changed: bool,
        report: MigrationReport | None = None,
    ) -> RestoreOutcome:
        """What is. ``state``: the guest's, now."""
        session, image = self._session, self._session.image
        verb = "Would restore" if self._check_mode else "Restored"
        return RestoreOutcome(
            changed=changed,
            message=f"{verb} {image.name} from {image.path}."
            if changed
            else f"{image.name} was restored from {image.path} before.",
            plan=replace(
                plan,
                recovers=self.recovers,
                warnings=(*plan.warnings, *session.warnings),
            ),
            saved=image,
            structure=session.structure,
            state_before=self.state_found or "absent",
            state_after=state,
            image_state_after=session.image_state,
            pid=guest.process.pid if guest is not None and guest.process is not None else None,
            migration=report,
            prefetched=session.prefetched,
            duration_seconds=round(time.monotonic() - self._began, 3),
            actions=tuple(session.actions),
            qmp_socket=self.qmp_socket,
        )
