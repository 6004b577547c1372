# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A QMP command as a server sees it, and what answers one."""

from __future__ import annotations

import fcntl
import os
import typing as t
from dataclasses import dataclass

Emit = t.Callable[[str, t.Mapping[str, t.Any]], None]


class QmpFailure(Exception):
    """What a responder raises to answer with an error."""

    def __init__(self, error_class: str, description: str) -> None:
        super().__init__(description)
        self.error_class = error_class
        self.description = description


class LinkBroken(Exception):
    """What a responder raises to end like a QEMU: the link breaks and nobody listens any more.

    ``answer`` is returned first; None means that it dies without a word.
    """

    def __init__(self, answer: object = None) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(frozen=True)
class ReceivedFd:
    """A file descriptor that came by SCM_RIGHTS; open until the monitor is left.

    ``target`` is what it leads to, ``flags`` are its file status flags (F_GETFL).
    """

    fd: int
    target: str
    flags: int

    @classmethod
    def of(cls, fd: int) -> ReceivedFd:
        return cls(fd, os.readlink(f"/proc/self/fd/{fd}"), fcntl.fcntl(fd, fcntl.F_GETFL))

    @property
    def access_mode(self) -> int:
        """os.O_RDONLY, os.O_WRONLY or os.O_RDWR."""
        return self.flags & os.O_ACCMODE

    @property
    def direct(self) -> bool:
        return bool(self.flags & os.O_DIRECT)


@dataclass(frozen=True)
class Command:
    """One command as it came, with the file descriptors that were waiting for it."""

    name: str
    arguments: t.Mapping[str, t.Any]
    fds: tuple[ReceivedFd, ...] = ()


class Responder(t.Protocol):
    """Answers whatever the script does not."""

    def respond(self, command: Command, emit: Emit) -> object:
        """The value to return; raises `QmpFailure` or `LinkBroken`."""
