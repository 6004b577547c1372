# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Progress for the controller: one small file that is always whole, which it reads now and then.

``pid`` is the process that writes it, from the beginning. Its ``guests`` are objects with ``verb``,
``guest``, ``step``, ``done_bytes``, ``total_bytes``, ``ended`` and ``error`` as in `Event`, in the
order in which they began, and ``seconds`` since then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import typing as t

from ._qemu._secrets import hide_in
from ._telling import Event, listening

_PAUSE_SECONDS = 0.4


class ProgressFile:
    """Written anew at most every 0.4 s, and at the end of each guest. It never fails a run."""

    def __init__(self, path: str, clock: t.Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._guests: dict[tuple[str, str], tuple[float, Event]] = {}
        self._written = float("-inf")
        self._later: asyncio.TimerHandle | None = None

    def hear(self, event: Event) -> None:
        """Note an event."""
        now, key = self._clock(), (event.verb, event.guest)
        began, last = self._guests.get(key, (now, event))
        if last.ended is not None and event.ended is None:
            began = now  # once more, as after a rollback
        self._guests[key] = (began, event)
        wait = self._written + _PAUSE_SECONDS - now
        if event.ended is not None or wait <= 0:
            self.write()
        elif self._later is None:
            with contextlib.suppress(RuntimeError):  # no event loop
                self._later = asyncio.get_running_loop().call_later(wait, self.write)

    def write(self) -> None:
        """Write what was noted so far."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        now = self._written = self._clock()
        guests = [
            {
                "verb": event.verb,
                "guest": event.guest,
                "step": hide_in(event.step),
                "done_bytes": event.done_bytes,
                "total_bytes": event.total_bytes,
                "seconds": round(now - began, 3),
                "ended": event.ended,
                "error": hide_in(event.error) if event.error is not None else None,
            }
            for began, event in self._guests.values()
        ]
        half = f"{self._path}.new"
        with contextlib.suppress(OSError):
            fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(fd, "w", encoding="utf-8") as target:
                json.dump({"pid": os.getpid(), "guests": guests}, target)
            os.replace(half, self._path)


@contextlib.contextmanager
def progress_in(path: str | None) -> t.Iterator[None]:
    """What use cases tell meanwhile is in that file; None for nowhere."""
    if path is None:
        yield
        return
    file = ProgressFile(path)
    file.write()
    with listening(file.hear):
        yield
