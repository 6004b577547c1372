# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines a controller shows while a module works, and how they read."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._progress_file import ProgressFile
from ansible_collections.vmfleet.suspend.plugins.module_utils._telling import Event
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._progress_action import (
    entries_of,
    look_after_seconds,
    own_result,
    pid_of,
)
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._progress_lines import (
    ProgressLines,
    amount,
    duration,
    end_line,
    step_line,
)

GIB = 1 << 30
WRITING = "writing the guest's state"


def an_entry(step=WRITING, done=None, total=None, **fields):
    return {
        "verb": "save",
        "guest": "web01",
        "step": step,
        "done_bytes": done,
        "total_bytes": total,
        "seconds": 4.2,
        "ended": None,
        "error": None,
        **fields,
    }


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (4.1 * GIB, "4.1 GiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_amounts_are_for_people(size_bytes, words):
    assert amount(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_for_people(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("entry", "rate", "line"),
    [
        (an_entry(), None, "web01: writing the guest's state"),
        (
            an_entry(done=4 * GIB, total=16 * GIB),
            2.0 * GIB,
            "web01: writing the guest's state, 25 %, 4.0 GiB of 16.0 GiB, 2.0 GiB/s, 6.0 s left",
        ),
        (an_entry("loading", 4 * GIB), 2.0 * GIB, "web01: loading, 4.0 GiB, 2.0 GiB/s"),
        (an_entry("Wait for it to end."), None, "web01: Wait for it to end"),
    ],
    ids=["no bytes", "of a total", "without a total", "words of an error"],
)
def test_one_step_is_one_line(entry, rate, line):
    assert step_line(entry, rate) == line


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (an_entry(ended="done"), "web01: saved in 4.2 s"),
        (an_entry(verb="restore", ended="done"), "web01: restored in 4.2 s"),
        (
            an_entry(ended="failed", error="No space left."),
            "web01: save failed after 4.2 s: No space left.",
        ),
    ],
)
def test_an_end_is_one_line(entry, line):
    assert end_line(entry) == line


def test_what_quotes_others_is_one_line_and_commands_no_terminal():
    quoting = an_entry(ended="failed", error="QEMU exited 1 and said: a\r\n  b\x1b[2J\u2028c.")
    assert ProgressLines().lines([quoting], 0.0) == [
        "web01: save failed after 4.2 s: QEMU exited 1 and said: a b [2J c."
    ]


def test_a_step_is_shown_once_it_takes_long_and_again_after_a_quarter_or_five_seconds():
    lines = ProgressLines()
    looks = [
        (0.0, 0, 0),
        (0.5, 2, 0),
        (1.0, 4, 1),  # a second in this step
        (1.5, 8, 0),
        (2.0, 30, 1),  # more than a quarter since
        (4.0, 31, 0),
        (7.0, 32, 1),  # five seconds since
    ]
    for now, percent, expected in looks:
        found = lines.lines([an_entry(done=percent * GIB, total=100 * GIB)], now)
        assert len(found) == expected, (now, found)
    assert found == [
        "web01: writing the guest's state, 32 %, 32.0 GiB of 100.0 GiB, 4.6 GiB/s, 15 s left"
    ]
    assert lines.lines([an_entry(ended="done")], 8.0) == ["web01: saved in 4.2 s"]
    assert lines.lines([an_entry(ended="done")], 9.0) == []


def test_steps_that_are_over_at_once_are_not_shown():
    lines = ProgressLines()
    for number in range(20):
        assert lines.lines([an_entry(f"step {number}")], number / 2) == []


def test_a_guest_is_looked_after_without_a_word_unless_that_takes_long():
    asks = an_entry("asking its agent", verb="look after")
    waits = an_entry("waiting for the agent", verb="look after")
    ended = an_entry("waiting for the agent", verb="look after", ended="done")
    assert ProgressLines().lines([asks, ended], 0.0) == []
    lines = ProgressLines()
    shown = [line for now in (0.0, 1.0, 2.0) for line in lines.lines([waits], now)]
    assert shown == ["web01: waiting for the agent"]
    assert lines.lines([ended], 3.0) == ["web01: looked after in 4.2 s"]


def test_waiting_for_another_run_is_told_at_once():
    entry = an_entry("Another run (pid 7) suspends this host.", verb="wait", guest="/images")
    assert ProgressLines().lines([entry], 0.0) == [
        "/images: Another run (pid 7) suspends this host"
    ]


def test_a_guest_that_comes_back_again_is_shown_again():
    lines = ProgressLines()
    lines.lines([an_entry(ended="done")], 0.0)
    assert lines.lines([an_entry("once more")], 1.0) == []
    assert lines.lines([an_entry("once more")], 2.5) == ["web01: once more"]


def test_the_file_is_whole_at_any_moment_and_written_no_more_than_needed(tmp_path):
    now = [0.0]
    path = tmp_path / "progress"
    file = ProgressFile(str(path), lambda: now[0])
    event = Event("save", "web01", None, "writing")
    file.hear(event)
    for share in range(1, 4):
        now[0] += 0.1
        file.hear(Event("save", "web01", None, "writing", share, 10))
    (entry,) = json.loads(path.read_text())["guests"]
    assert (entry["done_bytes"], entry["seconds"]) == (None, 0.0)
    now[0] += 0.1
    file.hear(Event("save", "web01", None, "writing", 4, 10, "done"))
    (entry,) = json.loads(path.read_text())["guests"]
    assert (entry["done_bytes"], entry["seconds"], entry["ended"]) == (4, 0.4, "done")
    assert [p.name for p in tmp_path.iterdir()] == ["progress"]


def test_a_job_that_takes_long_is_looked_at_less_often():
    assert [look_after_seconds(running) for running in (0, 10, 30, 3600)] == [0.5, 1.0, 2.0, 2.0]


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path):
    ProgressFile(str(tmp_path / "none" / "progress")).hear(Event("save", "web01", None, "writing"))


@pytest.mark.parametrize("answer", ["", "\nvmfleet-job-ended\n", "{", '{"guests": 1}\n'])
def test_a_file_that_is_not_there_yet_shows_nothing(answer):
    assert entries_of(answer) == []
    assert pid_of(answer) is None


def test_the_result_is_the_modules_own():
    status = {
        "changed": True,
        "msg": "Saved.",
        "ansible_job_id": "1",
        "results_file": "/x",
        "started": True,
        "finished": True,
        "stdout": "",
        "stderr_lines": [],
        "invocation": {"module_args": {"path": "/y", "progress_file": "/x.progress"}},
    }
    assert own_result(status) == {
        "changed": True,
        "msg": "Saved.",
        "invocation": {"module_args": {"path": "/y", "progress_file": None}},
    }


def test_of_a_module_that_crashed_all_is_told_that_it_printed():
    printed = {"cmd": "python qemu_save.py", "msg": "JSONDecodeError", "stderr": "MemoryError"}
    assert own_result({"failed": True, "ansible_job_id": "1", "finished": 1, **printed}) == {
        "failed": True,
        **printed,
    }


def test_what_came_too_soon_after_another_event_is_written_a_little_later(tmp_path):
    path = tmp_path / "progress"

    async def two_steps():
        file = ProgressFile(str(path))
        for step in ("preparing", "writing"):
            file.hear(Event("save", "web01", None, step))
        end = time.monotonic() + 10
        while json.loads(path.read_text())["guests"][0]["step"] != "writing":
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    asyncio.run(two_steps())
