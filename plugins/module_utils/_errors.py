# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The one error root. Every message says what failed, where (file and offset, or QMP command),
and what to do; facts that a program may want to read travel beside it."""

from __future__ import annotations

import typing as t


class VmfleetError(Exception):
    """Root of every error this collection raises on purpose.

    ``message`` is one or more full sentences for the operator. ``facts`` are plain values
    (snake_case keys) that a module returns beside the message.
    """

    def __init__(self, message: str, **facts: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Refused(VmfleetError):
    """A precondition does not hold. Raised before anything was changed."""


class ImageInvalid(VmfleetError):
    """A file is not a save image, or not a whole one. Names the file and the offset in bytes."""

    def __init__(self, path: str, offset_bytes: int, reason: str) -> None:
        super().__init__(
            f"{path}: {reason} (at offset {offset_bytes})",
            path=path,
            offset_bytes=offset_bytes,
        )
        self.path = path
        self.offset_bytes = offset_bytes
        self.reason = reason


class NotASaveImage(ImageInvalid):
    """The file carries no save magic at all."""


class Busy(Refused):
    """Another run of this collection is at work on it. It ends by itself, and then this can be."""


class ImageLocked(Busy):
    """Another process holds the lock of a save image."""


class StoreError(VmfleetError):
    """The filesystem refused: no space, no permission, no O_DIRECT, I/O error."""


class MonitorError(VmfleetError):
    """The QMP monitor cannot be reached, or went away."""


class QmpCommandError(MonitorError):
    """QEMU answered a command with an error; ``facts`` hold its own class and words."""

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(
            f"QEMU refused {command}: {description}",
            qmp_command=command,
            qmp_error_class=error_class,
            qmp_error=description,
        )
        self.command = command
        self.description = description


class LibvirtError(VmfleetError):
    """libvirt cannot be reached, or answered with an error; ``facts`` hold its own number."""

    def __init__(self, doing: str, description: str, code: int) -> None:
        super().__init__(f"{doing}: libvirt says: {description}", libvirt_error_code=code)
        self.code = code
        self.description = description


class MigrationFailed(VmfleetError):
    """QEMU reported a migration as failed or cancelled."""


class DeadlineExceeded(VmfleetError):
    """The time the caller gave is over."""


class GuestLost(VmfleetError):
    """The QEMU process ended while it still held the guest."""
