# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many guests are moved at the same time."""

from __future__ import annotations

import asyncio
import collections
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import Limits
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import Journal
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    JournalWriter,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._run import Run
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._together import all_of

FAST, SLOW = 1, 2


@pytest.fixture
def run_with(tmp_path):
    """Plays so many guests of each store; the most at once of each, and of all."""

    async def played(limits, guests):
        journal = Journal("20261129T000000Z-0000", "2026-11-29T00:00:00Z", "1.0.0", "/images")
        writer = JournalWriter.create(str(tmp_path), journal)
        run = Run(writer, limits, time.monotonic())
        now: collections.Counter[object] = collections.Counter()
        most: dict[object, int] = {}

        async def one(device):
            async with run.room(device):
                now.update([device, "all"])
                for what in (device, "all"):
                    most[what] = max(most.get(what, 0), now[what])
                await asyncio.sleep(0.001)
                now.subtract([device, "all"])

        await all_of([one(device) for device in guests])
        await writer.close()
        return most

    return lambda limits, guests: asyncio.run(played(limits, guests))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(1, 1), {FAST: 1, SLOW: 1, "all": 1}),
        (Limits(3, 2), {FAST: 2, SLOW: 2, "all": 3}),
        (Limits(8, 4), {FAST: 4, SLOW: 4, "all": 8}),
    ],
)
def test_no_more_at_once_than_store_and_host_have_room_for(run_with, limits, expected):
    assert run_with(limits, [FAST, SLOW] * 6) == expected


def test_who_waits_for_a_slow_store_takes_no_place_from_others(run_with):
    assert run_with(Limits(2, 1), [SLOW] * 6 + [FAST]) == {SLOW: 1, FAST: 1, "all": 2}
