# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long guests are held, and how a hold ends."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._hold import (
    held_seconds,
    release,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import Journal
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    AnotherRun,
    JournalWriter,
    open_journal,
    read_journals,
)

STORE = "/images"
MORNING = datetime.datetime(2026, 11, 24, 4, 0, tzinfo=datetime.UTC)


def a_journal(**fields):
    return Journal(
        id="1", created="2026-11-24T01:30:00Z", collection_version="1.0.0", store=STORE, **fields
    )


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (None, 0.0),
        (a_journal(), 0.0),
        (a_journal(hold_until="2026-11-24T04:00:00Z"), 0.0),
        (a_journal(hold_until="2026-11-24T03:59:59+00:00"), 0.0),
        (a_journal(hold_until="2026-11-24T05:00:30+01:00"), 30.0),
        (a_journal(hold_until="2026-11-24T05:00:00Z"), 3600.0),
        (a_journal(hold_until="2026-11-24T05:00:00Z", released=True), 0.0),
    ],
    ids=["no journal", "no hold", "just over", "over", "other offset", "an hour", "released"],
)
def test_guests_are_held_until_then_or_until_released(journal, expected):
    assert held_seconds(journal, MORNING) == expected


def test_a_time_that_cannot_be_read_is_no_end_of_the_hold():
    with pytest.raises(Refused, match="hold_until must be a time"):
        held_seconds(a_journal(hold_until="tomorrow"), MORNING)


def write(directory, journal):
    async def create():
        await JournalWriter.create(str(directory), journal).close()

    asyncio.run(create())


def test_a_release_is_in_the_journal_and_a_second_one_changes_nothing(tmp_path):
    write(tmp_path, a_journal(hold_until="2026-11-24T05:00:00Z"))
    for _time in range(2):
        released = asyncio.run(release(str(tmp_path), STORE))
        assert released is not None and released.released
    assert open_journal(read_journals(str(tmp_path)), STORE) == released


def test_without_an_open_suspend_there_is_nothing_to_release(tmp_path):
    assert asyncio.run(release(str(tmp_path / "none"), STORE)) is None


def test_a_journal_that_a_run_writes_is_not_released_beside_it(tmp_path):
    async def beside():
        writer = JournalWriter.create(str(tmp_path), a_journal(hold_until="2026-11-24T05:00:00Z"))
        try:
            with pytest.raises(AnotherRun):
                await release(str(tmp_path), STORE)
        finally:
            await writer.close()

    asyncio.run(beside())
