# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests on their way back, whose restores are only played."""

from __future__ import annotations

import asyncio
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _bring_back, _resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._bring_back import Returning
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import Limits
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import Source
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import Entry, Journal
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    JournalWriter,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._outcome import HostFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume_plan import (
    FINISH,
    REFUSED,
    RESTORE,
    Awaited,
    make_resume_plan,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._wishes import Wish


def awaited(name, action, **fields):
    source = Source(qmp_socket=f"/run/{name}")
    entry = Entry(name, name, None, source, f"/images/{name}.save", was_running=True, **fields)
    return Awaited(Returning(entry, Wish(name), {}), action, "because")


def resumed(directory, *guests):
    """The journal's states after a resume of these, one at a time, and what it said."""
    journal = Journal(
        "20261129T000000Z-0000",
        "2026-11-29T00:00:00Z",
        "1.0.0",
        "/images",
        entries=tuple(one.entry for one in guests),
    )

    async def run():
        writer = JournalWriter.create(str(directory), journal)
        plan = make_resume_plan(guests, Limits(1, 1))
        try:
            outcome = await _resume._Resume(plan, writer, time.monotonic(), whole=True).execute()
            message = outcome.message
        except HostFailed as exc:
            message = exc.message
        finally:
            await writer.close()
        return {one.key: one.state for one in writer.journal.entries}, message

    return asyncio.run(run())


def test_a_member_that_cannot_be_finished_is_one_that_its_group_waits_for(tmp_path, monkeypatch):
    async def unreadable(*_arguments, **_options):
        raise StoreError("Reading failed: Input/output error.")

    asked = {}

    async def noted(_run, unit, missing):
        asked[tuple(one.entry.name for one in unit)] = missing
        return False

    monkeypatch.setattr(_resume, "finish", unreadable)
    monkeypatch.setattr(_resume, "bring_back", noted)
    half = awaited("half", FINISH, state="saving", group="pair")
    whole = awaited("whole", RESTORE, state="verified", group="pair")
    states, message = resumed(tmp_path, half, whole)
    assert asked == {("whole",): ["half"]}
    assert states == {"half": "saving", "whole": "verified"}
    assert "half: Reading failed" in message


@pytest.mark.parametrize("state", ["saved", "verified"])
def test_an_image_is_what_it_was_after_a_restore_that_failed(tmp_path, monkeypatch, state):
    async def refused(*_arguments, **_options):
        raise Refused("Its disks have changed.")

    monkeypatch.setattr(_bring_back, "restore_one", refused)
    states, message = resumed(tmp_path, awaited("web01", RESTORE, state=state))
    assert states == {"web01": state}
    assert "web01: Its disks have changed" in message


def test_a_group_comes_in_its_turn_and_runs_as_soon_as_it_is_loaded(tmp_path, monkeypatch):
    said = []

    async def restored(_run, one, run_state):
        said.append(f"{one.entry.name} {run_state}")
        for _while in range(20):
            await asyncio.sleep(0.001)
        said.append(f"{one.entry.name} done")
        return object()

    async def nothing(*_arguments):
        pass

    monkeypatch.setattr(_bring_back, "_restored", restored)
    monkeypatch.setattr(_bring_back, "_look_after", nothing)
    guests = [
        awaited("a", RESTORE, state="verified", group="q", bytes=9),
        awaited("b", RESTORE, state="verified", group="q", bytes=8),
        awaited("c", RESTORE, state="verified", bytes=1),
    ]
    states, _message = resumed(tmp_path, *guests)
    assert set(states.values()) == {"running"}
    assert said[:4] == ["a paused", "a done", "b paused", "b done"]
    assert said.index("b running") < said.index("c done")


def test_a_signal_while_the_journal_is_closed_ends_the_wait_for_a_guest_that_is_not_ready(
    tmp_path, monkeypatch
):
    journal = Journal("id", "2026-11-29T00:00:00Z", "1.0.0", "/images", released=True)
    note = JournalWriter.note
    closing = asyncio.Event()

    async def slow(writer, **changes):
        closing.set()
        await asyncio.sleep(0.05)
        await note(writer, **changes)

    async def run():
        writer = JournalWriter.create(str(tmp_path), journal)
        going = _resume._Resume(make_resume_plan((), Limits(1, 1)), writer, 0.0, whole=True)
        waits = asyncio.ensure_future(asyncio.sleep(600))
        going._run.aside(asyncio.wait_for(waits, None))
        work = asyncio.ensure_future(going.execute())
        await closing.wait()
        work.cancel()
        await asyncio.wait([work], timeout=20)
        assert work.done() and waits.cancelled()
        with pytest.raises(HostFailed, match="interrupted by a signal"):
            await work
        await writer.close()
        return writer.journal.closed

    monkeypatch.setattr(JournalWriter, "note", slow)
    assert asyncio.run(run()) == "resumed"


def test_check_mode_names_whom_a_resume_could_not_bring_back():
    guests = (awaited("web", RESTORE), awaited("db", REFUSED))
    journal = Journal("id", "2026-11-29T00:00:00Z", "1.0.0", "/images")
    plan = make_resume_plan(guests, Limits(1, 1))
    foreseen = _resume._foreseen(plan, journal, 0.0, changes=True, check_mode=True)
    assert foreseen.message == "Would resume 1 guests of this host, and could not bring back db."
    assert foreseen.warnings == ("db: because",)
