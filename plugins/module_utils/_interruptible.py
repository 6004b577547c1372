# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Signals that end a run: the first one lets it undo what it did."""

from __future__ import annotations

import asyncio
import signal
import typing as t

from ._errors import VmfleetError

_Result = t.TypeVar("_Result")


class Interrupted(VmfleetError):
    """A signal ended the run before anything was changed."""


async def interruptible(work: t.Coroutine[t.Any, t.Any, _Result]) -> _Result:
    """Run ``work``; the first SIGTERM or SIGINT cancels it, so that it can undo what it did.

    Further signals are ignored: the way back is never interrupted.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    signalled: list[str] = []

    def on_signal(number: signal.Signals) -> None:
        if not signalled:
            task.cancel()
        signalled.append(number.name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        raise Interrupted(
            f"Ended by {signalled[0] if signalled else 'cancellation'} before anything was changed."
        ) from None
