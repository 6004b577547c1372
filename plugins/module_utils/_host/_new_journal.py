# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a plan looks like in the journal, before anything is done."""

from __future__ import annotations

import secrets
import typing as t

from .._qemu._process import identify
from .._version import COLLECTION_VERSION
from ._journal import Entry, Journal
from ._journal_file import now
from ._plan import GuestPlan
from ._requests import MANAGED, SuspendRequest


def new_journal(request: SuspendRequest) -> Journal:
    """One without entries yet."""
    created = now()
    stamp = created.replace("-", "").replace(":", "")
    return Journal(
        id=f"{stamp}-{secrets.token_hex(4)}",
        created=created,
        collection_version=COLLECTION_VERSION,
        store=request.store,
        hold_until=request.hold_until,
    )


def entry_of(plan: GuestPlan) -> Entry:
    """A guest as it is planned."""
    guest, wish, save = plan.guest, plan.seen.wish, plan.seen.save
    options = dict(wish.restore)
    if wish.save.get(MANAGED):
        options[MANAGED] = True
    return Entry(
        key=guest.key,
        name=guest.name,
        uuid=guest.uuid,
        source=guest.source,
        path=plan.seen.path or "",
        was_running=save.was_running if save is not None else None,
        group=wish.group,
        priority=wish.priority,
        depends_on=wish.depends_on,
        policy=wish.policy,
        options=options,
        process=identify(guest.pid) if guest.pid is not None else None,
        predicted_seconds=plan.predicted_seconds,
    )


def replanned(known: Entry, fresh: Entry) -> dict[str, t.Any]:
    """What changes in the entry of a guest that is planned again.

    One that we stopped ourselves ran before, whatever it looks like now.
    """
    changed = {
        name: getattr(fresh, name)
        for name in (
            "name",
            "source",
            "path",
            "group",
            "priority",
            "depends_on",
            "policy",
            "options",
            "process",
            "predicted_seconds",
        )
    }
    if not known.held:
        changed["was_running"] = fresh.was_running
    forgotten = dict.fromkeys(("actual_seconds", "bytes", "reason", "stale_image"))
    return {**changed, **forgotten}
