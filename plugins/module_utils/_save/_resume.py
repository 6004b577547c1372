# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Taking a dead run's place: its plan, its hold on the guest and its session, as it had them."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from .._image_record import SavedImage
from .._qemu._bookmark import SAVE, Bookmark, StateBefore
from .._qemu._deadline import Deadline
from .._qemu._guest import Guest
from .._qemu._monitor import Monitor
from .._qemu._negotiation import Negotiated, put_back_everything
from .._qemu._run_states import save_decision
from .._saveimage._prefix import read_prefix
from .._saveimage._publish import PartialImage
from ._hold import GuestHold
from ._leftover import PARTIAL, READY, Leftover
from ._plan import MAPPED_RAM, SEQUENTIAL, ImageKind, SavePlan
from ._planning import free_bytes
from ._record import state_before
from ._request import SaveRequest
from ._session import SaveSession
from ._steps import CONTENT, FD_NAME


def before_of(leftover: Leftover, guest: Guest) -> StateBefore:
    """What the guest was like before; as it is now, where nobody noted it."""
    return leftover.before or state_before(guest)


def guest_before(leftover: Leftover, guest: Guest) -> Guest:
    """The guest as it will be once the save that died is undone."""
    before = before_of(leftover, guest)
    return replace(
        guest,
        run_state="running" if leftover.continues else before.run_state,
        migration_status=None,
        offer=before.offer(guest.offer),
    )


def take_hold(hold: GuestHold, leftover: Leftover, guest: Guest) -> None:
    """Note in ``hold`` what the dead run may have done to the guest."""
    hold.fdset_id = leftover.fdset_id
    # The fdset is given before anything is set, and taken back last.
    hold.negotiated = leftover.fdset_id is not None or leftover.state == PARTIAL
    hold.fd_name = FD_NAME if hold.negotiated else None
    # Whether it ended is looked at when it is cancelled: it may be ending just now.
    hold.migrating = not leftover.published
    # An image that was ready left the guest in postmigrate; only an operator brings it out of that.
    stopped_by_us = leftover.state != READY or guest.run_state == "postmigrate"
    if stopped_by_us and guest.run_state != before_of(leftover, guest).run_state:
        hold.stopped_at = time.monotonic()


def hold_of(monitor: Monitor, leftover: Leftover, guest: Guest) -> GuestHold:
    """The dead run's hold on the guest, where its image no longer matters."""
    before = before_of(leftover, guest)
    hold = GuestHold(
        monitor,
        guest,
        put_back_everything(before.offer(guest.offer)),
        save_decision(before.run_state).was_running or leftover.continues,
    )
    take_hold(hold, leftover, guest)
    return hold


def plan_of(
    leftover: Leftover, guest: Guest, request: SaveRequest, existing: SavedImage | None
) -> SavePlan:
    """The plan that the dead run followed, with what this run wants of its end."""
    before = before_of(leftover, guest)
    known = leftover.negotiated or {}
    label = leftover.image_format or "raw"
    mapped = leftover.is_mapped_ram
    bypass_cache = known.get("bypass_cache") is True
    reason = "as the run decided that this one finishes"
    return SavePlan(
        path=leftover.target,
        name=leftover.name or guest.name or os.path.basename(leftover.target),
        uuid=leftover.uuid or guest.uuid,
        kind=ImageKind(leftover.version or 2, label, MAPPED_RAM if mapped else SEQUENTIAL, reason),
        negotiated=Negotiated(
            layout=MAPPED_RAM if mapped else SEQUENTIAL,
            channels=int(known.get("parallel_channels", 0)),
            bypass_cache=bypass_cache,
            capabilities_on=tuple(known.get("capabilities_on", ())),
            apply=(),
            put_back=put_back_everything(before.offer(guest.offer)),
            reasons={"parallel_channels": reason, "bypass_cache": reason},
            degraded=(),
            exit_on_error_supported=guest.offer.migrate_incoming_exit_on_error,
        ),
        bypass_cache_proved=bypass_cache,
        run_state_before=before.run_state,
        was_running=save_decision(before.run_state).was_running,
        guest_state=request.guest_state,
        # Between the two runs somebody may have let the guest run.
        verify=CONTENT,
        replaces=existing,
        unit=request.unit,
        at_most_bytes=os.stat(leftover.path).st_size,
        free_bytes=free_bytes(leftover.target),
        warnings=(),
    )


def session_of(
    monitor: Monitor,
    guest: Guest,
    leftover: Leftover,
    plan: SavePlan,
    image: PartialImage,
    deadline: Deadline,
) -> SaveSession:
    """The dead run's session, as far as it had got."""
    data_offset_bytes = 0
    if leftover.version is not None:
        data_offset_bytes = read_prefix(image.fd, image.path).header.data_offset_bytes
    session = SaveSession(
        monitor,
        guest,
        plan,
        image,
        os.pread(image.fd, data_offset_bytes, 0),
        Bookmark(SAVE, image.path, os.fstat(image.fd).st_ino, before_of(leftover, guest)),
        deadline,
    )
    take_hold(session, leftover, guest)
    image.committing = leftover.state == READY
    return session
