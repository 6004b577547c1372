# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that end a run."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import (
    Interrupted,
    interruptible,
)

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def send(number):
    os.kill(os.getpid(), number)


def test_work_that_is_left_alone_returns_its_result():
    async def work():
        return 42

    assert asyncio.run(interruptible(work())) == 42


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_anything_was_changed_ends_the_run_with_its_name(number):
    async def work():
        send(number)
        await asyncio.sleep(30)

    with pytest.raises(Interrupted, match=f"Ended by {number.name} before anything was changed"):
        asyncio.run(interruptible(work()))


def test_work_that_undoes_something_says_itself_how_it_ended():
    async def work():
        send(signal.SIGTERM)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise VmfleetError("Undone.") from None

    with pytest.raises(VmfleetError, match=r"Undone\."):
        asyncio.run(interruptible(work()))


@pytest.mark.parametrize("second", SIGNALS)
def test_the_way_back_is_never_interrupted(second):
    undone = []

    async def work():
        send(signal.SIGTERM)
        try:
            await asyncio.sleep(30)
        finally:
            for step in range(3):
                send(second)
                await asyncio.sleep(0.01)
                undone.append(step)

    with pytest.raises(Interrupted, match="SIGTERM"):
        asyncio.run(interruptible(work()))
    assert undone == [0, 1, 2]
