# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A shutdown of the host that is scheduled already (shutdown(8)): pure functions.

logind writes it down in a file of assignments: USEC=, since the epoch, and MODE=, which begins with
``dry-`` where nothing will happen.
"""

from __future__ import annotations

import datetime

from ._competing_values import HOST_SHUTDOWN, ScheduledShutdown, Starter


def scheduled(text: str) -> ScheduledShutdown | None:
    """From logind's file; None where it says of none."""
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    mode = told.get("MODE", "")
    if not mode or mode.startswith("dry-") or not told.get("USEC", "").isdigit():
        return None
    moment = datetime.datetime.fromtimestamp(int(told["USEC"]) // 10**6, datetime.timezone.utc)
    return ScheduledShutdown(moment.strftime("%Y-%m-%dT%H:%M:%SZ"), mode)


def host_shutdown(seen: ScheduledShutdown) -> Starter:
    """It never blocks: a suspend that ends before may be what it is scheduled for."""
    return Starter(
        HOST_SHUTDOWN,
        "shutdown",
        f"The host is to go down at {seen.at} ({seen.mode}): guests that are not saved by then end "
        "with it.",
        (),
        blocks=False,
        can_disable=False,
        advice="Run `shutdown -c`, unless the suspend surely ends before.",
    )
