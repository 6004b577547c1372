# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""When hosts that go side by side would begin."""

from __future__ import annotations

import heapq
import typing as t


def begins_of(seconds: t.Sequence[float], throttle: int) -> tuple[list[float], float]:
    """When each begins, of those that take so long, and when all are done; in seconds. ``throttle``
    at a time in the order given, 0 for all at once."""
    places = [0.0] * (throttle or max(1, len(seconds)))
    begins = []
    for one in seconds:
        begins.append(places[0])
        heapq.heapreplace(places, places[0] + one)
    return begins, max(places)
