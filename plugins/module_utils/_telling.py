# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a use case is doing to which guest, told while it happens to whoever listens.

Who tells needs not know about what: that is the context it runs in, of its own in each task of
asyncio. Where nobody has said what it is about, as in check mode, nothing is told.
"""

from __future__ import annotations

import contextlib
import typing as t
from contextvars import ContextVar
from dataclasses import dataclass, replace

SAVING, RESTORING = "save", "restore"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Event:
    """One guest at one moment. ``verb``: save or restore; ``image``: its path, None for libvirt's
    own; ``step``: what goes on, as error messages name it; ``done_bytes`` of ``total_bytes``: how
    far the RAM is, None where nobody can tell; ``ended``: done, failed, or None; ``error``: why it
    failed."""

    verb: str
    guest: str
    image: str | None
    step: str = ""
    done_bytes: int | None = None
    total_bytes: int | None = None
    ended: str | None = None
    error: str | None = None


Listener = t.Callable[[Event], None]


class _Subject:
    def __init__(self, event: Event) -> None:
        self.event = event

    def tell(self, **changes: t.Any) -> None:
        if self.event.ended is not None:  # by who still counted
            return
        self.event = replace(self.event, **changes)
        for listener in tuple(_listeners):
            listener(self.event)


_subject: ContextVar[_Subject | None] = ContextVar("vmfleet_subject", default=None)
_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(*listeners: Listener) -> t.Iterator[None]:
    """They hear every event meanwhile. A listener must be quick, and must not raise."""
    _listeners.extend(listeners)
    try:
        yield
    finally:
        for listener in listeners:
            _listeners.remove(listener)


@contextlib.contextmanager
def about(verb: str, guest: str, image: str | None, *, silent: bool = False) -> t.Iterator[None]:
    """What is told inside is about this guest; the end is told by itself where anything was.

    ``silent``: nothing is, as in check mode.
    """
    if silent:
        yield
        return
    subject = _Subject(Event(verb, guest, image))
    token = _subject.set(subject)
    try:
        yield
    except BaseException as exc:
        if subject.event.step:
            subject.tell(ended=FAILED, error=str(exc) or type(exc).__name__)
        raise
    else:
        if subject.event.step:
            subject.tell(ended=DONE)
    finally:
        _subject.reset(token)


def tell_step(step: str) -> None:
    """What goes on from now."""
    subject = _subject.get()
    if subject is not None and step != subject.event.step:
        subject.tell(step=step, done_bytes=None, total_bytes=None)


def tell_bytes(done_bytes: int, total_bytes: int | None) -> None:
    """How far the step is."""
    subject = _subject.get()
    if subject is not None:
        subject.tell(done_bytes=done_bytes, total_bytes=total_bytes)


class Steps:
    """Of a use case: ``step`` names what goes on, for its errors and for who listens."""

    _step = "starting"

    @property
    def step(self) -> str:
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        self._step = step
        tell_step(step)
