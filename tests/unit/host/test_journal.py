# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: who may follow whom, and a file that is whole at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _journal_file
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import Source
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal import (
    FOLLOWS,
    Entry,
    Journal,
    JournalInvalid,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    Journals,
    JournalWriter,
    open_journal,
    path_of,
    read_journals,
    refuse_beside_another,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._new_journal import replanned
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import (
    ProcessIdentity,
)

WRITES = ("open", "fsync", "rename")


def an_entry(name="web01", **fields):
    return Entry(
        key=name,
        name=name,
        uuid=None,
        source=Source(qmp_socket=f"/run/{name}"),
        path="/i",
        **fields,
    )


def a_journal(number=1, **fields):
    fields.setdefault("store", "/images")
    return Journal(
        id=f"2026112{number}T000000Z-0000",
        created=f"2026-11-2{number}T00:00:00Z",
        collection_version="1.0.0",
        **fields,
    )


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "journal")


def write(directory, journal, *steps):
    """Write a journal and then each step of (key, state, changes)."""

    async def run():
        writer = JournalWriter.create(directory, journal)
        try:
            for key, state, changes in steps:
                await writer.set(key, state, **changes)
        finally:
            await writer.close()

    asyncio.run(run())


# States


@pytest.mark.parametrize("state", FOLLOWS)
def test_only_what_the_table_says_may_follow(state):
    for after in FOLLOWS:
        if after == state or after in FOLLOWS[state]:
            assert an_entry(state=state).moved(after).state == after
        else:
            with pytest.raises(ValueError, match=f"cannot go from {state} to {after}"):
                an_entry(state=state).moved(after)


@given(st.lists(st.sampled_from(sorted(FOLLOWS)), max_size=12))
def test_nobody_is_restored_whose_ram_is_lost_or_who_was_never_saved(wanted):
    entry, seen = an_entry(), ["planned"]
    for state in wanted:
        if state in FOLLOWS[entry.state]:
            entry = entry.moved(state)
            seen.append(state)
            if state == "restoring":
                before = seen[-2]
                assert before not in ("crashed", "left", "shutdown", "failed", "running")


@pytest.mark.parametrize("state", ["running", "crashed"])
def test_nobody_is_held_by_us_who_runs_or_is_lost(state):
    assert an_entry(state="planned", held=True).moved(state).held is False


def test_a_lost_guest_that_was_started_anew_has_no_stale_image_any_more():
    lost = an_entry(state="crashed", stale_image="/i", reason="its QEMU ended", bytes=1)
    anew = lost.moved("planned", **replanned(lost, an_entry(was_running=True)))
    assert (anew.stale_image, anew.reason, anew.bytes, anew.was_running) == (None, None, None, True)


# The file


def test_what_is_written_is_what_is_read(directory):
    entry = an_entry(
        was_running=True,
        group="cluster",
        depends_on=("db",),
        options={"allow": frozenset({"spent"}), "argv": ("qemu", "-m", "1")},
        process=ProcessIdentity("boot", 7, 9),
        predicted_seconds=1.5,
    )
    journal = a_journal(entries=(entry,), competing=({"kind": "libvirt-guests"},))
    write(directory, journal)
    assert read_journals(directory) == Journals((journal,))
    assert os.stat(path_of(directory, journal)).st_mode & 0o777 == 0o600
    assert os.stat(directory).st_mode & 0o777 == 0o700


def test_results_tell_no_command_line(directory):
    told = json.dumps(a_journal(entries=(an_entry(options={"argv": ("s3cret",)}),)).as_dict())
    assert "s3cret" not in told


def test_no_directory_has_no_journal(directory):
    assert read_journals(directory) == Journals()
    assert open_journal(Journals(), "/images") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged at offset 1"),
        ("[]", "no JSON object"),
        ('{"format": 7, "collection_version": "9.0"}', "format 7, written by version 9.0"),
        ('{"format": 1}', "id is missing"),
        ("[" * 100_000, "damaged"),
        ("\udcff", "damaged"),
    ],
)
def test_one_that_cannot_be_read_stops_everybody_and_stays(directory, content, reason):
    os.makedirs(directory)
    path = os.path.join(directory, "20261124T000000Z-0000.json")
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as target:
        target.write(content)
    journals = read_journals(directory)
    with pytest.raises(JournalInvalid, match=reason) as invalid:
        open_journal(journals, "/images")
    assert path in invalid.value.message
    assert os.path.exists(path)


@pytest.mark.parametrize("field", ["state", "path", "source", "held", "options"])
def test_a_field_of_the_wrong_kind_is_named(directory, field):
    journal = a_journal(entries=(an_entry(),))
    write(directory, journal)
    path = path_of(directory, journal)
    with open(path, encoding="utf-8") as source:
        data = json.load(source)
    data["entries"][0][field] = 7
    with open(path, "w", encoding="utf-8") as target:
        json.dump(data, target)
    ((_path, reason),) = read_journals(directory).unreadable
    assert f"entries[0].{field} is 7" in reason


def test_only_one_suspend_of_a_store_is_open(directory):
    write(directory, a_journal(1))
    with pytest.raises(Refused, match="Another run has begun a suspend into /images"):
        JournalWriter.create(directory, a_journal(2))
    write(directory, a_journal(2, store="/other"))
    assert open_journal(read_journals(directory), "/images") == a_journal(1)


def test_the_newest_comes_first_and_old_closed_ones_go(directory, monkeypatch):
    monkeypatch.setattr(_journal_file, "_KEPT", 2)
    for number in range(1, 6):
        write(directory, a_journal(number, closed="resumed"))
    ids = [journal.id for journal in read_journals(directory).journals]
    assert ids == [a_journal(number).id for number in (5, 4, 3)]


def test_a_run_that_looked_before_another_one_wrote_is_refused(directory):
    journal = a_journal(entries=(an_entry(),))
    write(directory, journal, ("web01", "saving", {}))
    with pytest.raises(Refused, match="Another run has changed"):
        JournalWriter.resume(directory, journal)


HOLD = """
import sys, time
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _journal_file
_journal_file._lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_who_only_looks_whether_another_run_is_at_work_writes_nothing(directory):
    refuse_beside_another(directory)
    assert not os.path.exists(directory)
    os.mkdir(directory)
    refuse_beside_another(directory)
    assert os.listdir(directory) == []


def test_another_process_that_writes_is_named(directory):
    os.makedirs(directory)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, directory], stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=rf"Another run .*pid {holder.pid}") as refused:
            JournalWriter.create(directory, a_journal())
        holder.kill()
    assert refused.value.facts["holder_pid"] == holder.pid
    write(directory, a_journal())


# Writing


def test_a_hundred_changes_at_once_are_all_on_disk_after_few_writes(directory, monkeypatch):
    names = [f"g{number}" for number in range(100)]
    written: list[Journal] = []
    really = _journal_file._write

    def counted(place, journal):
        written.append(journal)
        really(place, journal)

    monkeypatch.setattr(_journal_file, "_write", counted)

    async def run():
        writer = JournalWriter.create(directory, a_journal(entries=tuple(map(an_entry, names))))
        await asyncio.gather(*(writer.set(name, "saving") for name in names))
        on_disk = read_journals(directory).journals[0]
        assert {entry.state for entry in on_disk.entries} == {"saving"}
        assert on_disk == writer.journal
        await writer.close()

    asyncio.run(run())
    assert len(written) <= 4


@pytest.mark.parametrize("call", WRITES)
def test_a_write_that_fails_is_told_to_all_who_wait_and_nothing_is_half_there(
    directory, monkeypatch, call
):
    journal = a_journal(entries=(an_entry("a"), an_entry("b")))

    def broken(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    async def run():
        writer = JournalWriter.create(directory, journal)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            results = await asyncio.gather(
                writer.set("a", "saving"), writer.set("b", "saving"), return_exceptions=True
            )
        assert [type(result) for result in results] == [StoreError, StoreError]
        assert path_of(directory, journal) in str(results[0])
        assert read_journals(directory).journals == (writer.journal,) == (journal,)
        # And it goes on when there is room again.
        await writer.set("a", "saving")
        assert read_journals(directory).journals == (writer.journal,)
        await writer.close()

    asyncio.run(run())


class Dead(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_process_that_dies_at_any_call_leaves_the_old_one_or_the_new_one(
    directory, monkeypatch, nth
):
    journal = a_journal(entries=(an_entry(),))
    write(directory, journal)
    calls = []

    def dying(really):
        def call(*arguments, **named):
            calls.append(1)
            if len(calls) == nth:
                raise Dead
            return really(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "rename", "close"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            moved = journal.with_entries([an_entry(state="saving")])
            _journal_file._write(directory, moved)
        except Dead:
            pass
    assert read_journals(directory).journals in ((journal,), (moved,))
    assert len(calls) >= min(nth, 6)


def test_half_written_files_of_dead_runs_go(directory):
    write(directory, a_journal(1, closed="resumed"))
    half = os.path.join(directory, "20261121T000000Z-0000.json.partial")
    with open(half, "w", encoding="utf-8") as target:
        target.write("{")
    write(directory, a_journal(2))
    assert not os.path.exists(half)


def test_what_others_could_have_written_is_not_believed(directory):
    journal = a_journal(entries=(an_entry(options={"argv": ("evil",)}),))
    write(directory, journal)
    os.chmod(path_of(directory, journal), 0o666)
    ((_path, reason),) = read_journals(directory).unreadable
    assert "others could have written it" in reason


def test_a_pipe_in_the_directory_holds_nobody_up(directory):
    os.makedirs(directory)
    os.mkfifo(os.path.join(directory, "20261124T000000Z-0000.json"))
    ((_path, reason),) = read_journals(directory).unreadable
    assert "no regular file" in reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"closed": "perhaps"}, "closed is 'perhaps'"),
        ({"competing": [3]}, "competing holds something else"),
    ],
)
def test_what_makes_no_sense_is_not_believed(directory, change, reason):
    journal = a_journal(entries=(an_entry(),))
    write(directory, journal)
    path = path_of(directory, journal)
    with open(path, encoding="utf-8") as source:
        data = json.load(source)
    with open(path, "w", encoding="utf-8") as target:
        json.dump({**data, **change}, target)
    assert reason in read_journals(directory).unreadable[0][1]


def test_one_guest_is_told_of_once(directory):
    journal = a_journal(entries=(an_entry(), an_entry()))
    with pytest.raises(JournalInvalid, match="one guest twice"):
        JournalWriter.create(directory, journal)


def test_a_value_that_could_not_be_read_back_is_refused_and_nobody_waits_for_ever(directory):
    async def run():
        writer = JournalWriter.create(directory, a_journal(entries=(an_entry(),)))
        for value in ("7", object()):
            with pytest.raises((JournalInvalid, TypeError)):
                await asyncio.wait_for(writer.set("web01", "saving", bytes=value), 5)
        await writer.set("web01", "saving")
        await writer.close()

    asyncio.run(run())
    assert read_journals(directory).journals[0].entries[0].state == "saving"


def test_a_write_that_failed_after_its_rename_is_remembered_as_it_is_on_disk(
    directory, monkeypatch
):
    async def run():
        writer = JournalWriter.create(directory, a_journal(entries=(an_entry(),)))
        calls = []
        really = os.fsync

        def second_fails(fd):
            calls.append(fd)
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
            really(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", second_fails)
            with pytest.raises(StoreError):
                await writer.set("web01", "saving")
        assert writer.journal == read_journals(directory).journals[0]
        assert writer.journal.entry("web01").state == "saving"
        await writer.close()

    asyncio.run(run())


def test_the_lock_is_held_until_what_is_being_written_is(directory, monkeypatch):
    really = _journal_file._write
    gate = threading.Event()

    def slow(place, journal):
        gate.wait(5)
        really(place, journal)

    async def run():
        writer = JournalWriter.create(directory, a_journal(entries=(an_entry(),)))
        monkeypatch.setattr(_journal_file, "_write", slow)
        waiting = asyncio.ensure_future(writer.set("web01", "saving"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0.05)
        with pytest.raises(Refused, match="Another run"):
            _journal_file._lock(directory)
        gate.set()
        await closing

    asyncio.run(run())
    assert read_journals(directory).journals[0].entries[0].state == "saving"
