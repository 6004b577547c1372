# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A guest's clock after it stood still: read and set through its agent, whichever way that is
reached.

qemu-ga sets the system's clock first and then runs hwclock, which may take seconds, and only then
answers (qga/commands-posix.c). What counts is what is read afterwards.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from ._errors import VmfleetError

_NS = 10**9
# Nearer than this it is left alone: the way to the agent and back is not much shorter.
_GOOD_SECONDS = 0.1
TARGET_SECONDS = 0.5

ABSENT, ANSWERED = "absent", "answered"


class AgentClock(t.Protocol):
    """The way to an agent. Raise `VmfleetError`."""

    async def read_ns(self) -> int:
        """The guest's clock, nanoseconds since the epoch."""

    async def set_ns(self, now: int) -> None:
        """Set it."""


@dataclass(frozen=True)
class ClockReport:
    """``agent``: answered, absent, silent, held or refused; skews: guest minus host in seconds,
    None where unknown; ``error``: in the agent's words."""

    agent: str
    skew_before_seconds: float | None = None
    skew_after_seconds: float | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {
            "agent": self.agent,
            "skew_before_seconds": self.skew_before_seconds,
            "skew_after_seconds": self.skew_after_seconds,
            "error": self.error,
        }

    @property
    def warning(self) -> str | None:
        """What the operator should know; None for a clock that is right, and without an agent."""
        if self.agent == ABSENT:
            return None
        after = self.skew_after_seconds
        if after is not None and abs(after) <= TARGET_SECONDS:
            return None
        if after is None:
            return f"The guest's clock was not set: {self.error or 'unknown'}."
        return f"The guest's clock is {after:+.1f} s off: {self.error or 'it could not be set'}."


def skew_seconds(guest_ns: int, asked_ns: int, answered_ns: int) -> float:
    """Guest minus host, read in the middle of the way there and back."""
    return round((guest_ns - (asked_ns + answered_ns) // 2) / _NS, 3)


async def synchronize(clock: AgentClock, now_ns: t.Callable[[], int] = time.time_ns) -> ClockReport:
    """Set the guest's clock to the host's unless it is right. Raises as ``clock`` where it cannot
    even be read."""
    before, way_ns = await _skew(clock, now_ns)
    after, error = before, None
    for good in (_GOOD_SECONDS, TARGET_SECONDS, TARGET_SECONDS):
        if abs(after) <= good:
            break
        try:
            # As it will be when it arrives.
            await clock.set_ns(now_ns() + way_ns // 2)
        except VmfleetError as exc:  # hwclock's failure, say, when the clock itself is set
            error = exc.message
        try:
            after, way_ns = await _skew(clock, now_ns)
        except VmfleetError as exc:
            return ClockReport(ANSWERED, before, None, error or exc.message)
    return ClockReport(ANSWERED, before, after, error)


async def _skew(clock: AgentClock, now_ns: t.Callable[[], int]) -> tuple[float, int]:
    asked = now_ns()
    guest = await clock.read_ns()
    answered = now_ns()
    return skew_seconds(guest, asked, answered), answered - asked
