# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How much time is left."""

from __future__ import annotations

import time

from .._errors import DeadlineExceeded


class Deadline:
    """A point in monotonic time, or none. ``seconds`` = 0 means no limit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end: float | None = time.monotonic() + seconds if seconds > 0 else None

    def remaining_seconds(self) -> float | None:
        """Seconds left, never negative; None without a limit."""
        if self._end is None:
            return None
        return max(0.0, self._end - time.monotonic())

    def at_most(self, seconds: float) -> float:
        """The smaller of ``seconds`` and what is left."""
        left = self.remaining_seconds()
        return seconds if left is None else min(seconds, left)

    def check(self, doing: str) -> None:
        """Raise `DeadlineExceeded`, naming what was going on, once the time is over."""
        if self._end is not None and time.monotonic() >= self._end:
            raise self.exceeded(doing)

    def exceeded(self, doing: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The timeout of {self.seconds:g} s was over while {doing}.",
            timeout_seconds=self.seconds,
        )
