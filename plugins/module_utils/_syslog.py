# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The host's own log: every step of every guest, under one identifier.

Not by libc's syslog(), which waits for a logger that hangs: a line that cannot be sent at once is
lost, and the save goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import typing as t

from ._qemu._secrets import hide_in
from ._telling import DONE, FAILED, Event, listening

IDENTIFIER = "vmfleet-suspend"
_ADDRESS = "/dev/log"
# The daemon facility (3), as in syslog.h.
_INFO, _ERROR = 3 << 3 | 6, 3 << 3 | 3
_MOST_BYTES = 2000


class Log:
    """Lines to the host's syslog; nothing happens where there is none."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def write(self, text: str, *, failure: bool = False) -> None:
        """One line, without secrets."""
        line = hide_in(text).replace("\n", " ").encode("utf-8", "backslashreplace")[:_MOST_BYTES]
        head = f"<{_ERROR if failure else _INFO}>{IDENTIFIER}[{os.getpid()}]: ".encode()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Each time by its name: the logger may have been started anew.
                self._socket.sendto(head + line, _ADDRESS)

    def hear(self, event: Event) -> None:
        """An event as a line; those that only count bytes are none."""
        if event.ended is not None or event.done_bytes is None:
            self.write(line_of(event), failure=event.ended == FAILED)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def line_of(event: Event) -> str:
    """One event in words: ``save web01 (/images/web01.save): verifying the image``."""
    image = f" ({event.image})" if event.image is not None else ""
    what = event.step
    if event.ended == DONE:
        what = DONE
    elif event.ended == FAILED:
        what = f"{FAILED}: {event.error}"
    return f"{event.verb} {event.guest}{image}: {what}"


@contextlib.contextmanager
def logging() -> t.Iterator[Log]:
    """What use cases tell meanwhile goes to the host's log."""
    log = Log()
    try:
        with listening(log.hear):
            yield log
    finally:
        log.close()
