# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What follows a restore once the guest runs, whichever way it was restored."""

from __future__ import annotations

import asyncio
import typing as t
from dataclasses import replace

from .._clock import ClockReport
from .._telling import about, tell_step
from ._outcome import RestoreOutcome
from ._presence import Presence, Wanted, parse_tcp, presence_of_domain, presence_over_qmp

LOOKING_AFTER = "look after"
# Option ready_check, as an argument spec has it.
READY_CHECK: dict[str, t.Any] = dict(
    type="dict",
    options=dict(
        tcp=dict(type="str"),
        agent=dict(type="bool", default=False),
        timeout=dict(type="int", default=60),
    ),
)


async def with_presence(
    outcome: RestoreOutcome, wanted: Wanted, *, uri: str | None = None, domain: str | None = None
) -> RestoreOutcome:
    """The outcome with the guest's presence, where this run has it running.

    Nothing of it fails the restore. A signal meanwhile ends the wait, and not what was done.
    """
    if not outcome.changed or outcome.state_after != "running":
        return outcome
    name = outcome.saved.name if outcome.saved is not None else outcome.guest[0]
    path = outcome.plan.path
    with about(LOOKING_AFTER, name or domain or path, path):
        tell_step("asking its agent" if wanted.sync_clock else "announcing it")
        try:
            if uri is not None and domain is not None:
                presence = await presence_of_domain(uri, domain, wanted)
            elif outcome.qmp_socket is not None:
                presence = await presence_over_qmp(outcome.qmp_socket, wanted)
            else:
                return outcome
            await asyncio.sleep(0)  # where a signal is heard that came while something was closed
        except asyncio.CancelledError:
            unknown = ClockReport("unknown", error="a signal ended the run before")
            presence = Presence(None, unknown if wanted.sync_clock else None)
    return replace(outcome, presence=presence)


def wanted_of(sync_clock: bool, ready_check: t.Mapping[str, t.Any] | None) -> Wanted:
    """From the modules' options. Raises `Refused`."""
    check = {"tcp": None, "agent": False, "timeout": 60, **(ready_check or {})}
    return Wanted(
        sync_clock=sync_clock,
        tcp=parse_tcp(check["tcp"]) if check["tcp"] is not None else None,
        agent=bool(check["agent"]),
        ready_seconds=float(check["timeout"]),
    )
