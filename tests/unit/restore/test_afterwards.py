# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows a restore never takes back that the guest runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _afterwards
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._outcome import (
    RestoreOutcome,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._presence import (
    Presence,
    Wanted,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._uninterrupted import finished_first

PLAN: Any = SimpleNamespace(path="/images/a.save")
RESTORED = RestoreOutcome(
    changed=True,
    message="",
    plan=PLAN,
    saved=None,
    structure=None,
    state_before="absent",
    state_after="running",
    image_state_after="spent",
    qmp_socket="/run/a.qmp",
)


async def asked_for_ever():
    await asyncio.sleep(60)


async def closed_at_last():
    await finished_first(asyncio.sleep(0.05))


@pytest.mark.parametrize("busy_with", [asked_for_ever, closed_at_last])
def test_a_signal_meanwhile_ends_the_wait_and_not_what_was_done(monkeypatch, busy_with):
    async def presence(_socket, _wanted):
        await busy_with()
        return Presence(True, None)

    async def restored():
        told = await _afterwards.with_presence(RESTORED, Wanted(True, None, False, 1))
        await asyncio.sleep(0)  # nothing of the signal is left for what comes next
        return told

    async def interrupted():
        task = asyncio.ensure_future(restored())
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    monkeypatch.setattr(_afterwards, "presence_over_qmp", presence)
    told = asyncio.run(interrupted()).presence
    assert (told.announced, told.clock.agent) == (None, "unknown")
    assert "a signal ended the run" in told.clock.error
