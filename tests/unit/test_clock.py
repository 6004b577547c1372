# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's clock is read, judged and set, whatever its agent does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._clock import (
    ClockReport,
    skew_seconds,
    synchronize,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    Refused,
    VmfleetError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._agent import (
    Agent,
    AgentError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._afterwards import (
    wanted_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._presence import (
    Presence,
    Wanted,
    parse_tcp,
)

SECOND = 10**9


class ModelClock:
    """A guest whose clock is ``skew`` seconds off, behind an agent that is slow to set it."""

    def __init__(self, skew, *, slow_seconds=0.0, deaf=False, fails=False, hangs=False):
        self.host_ns = 1_000_000 * SECOND
        self.skew_ns = int(skew * SECOND)
        self.slow_ns = int(slow_seconds * SECOND)
        self.deaf, self.fails, self.hangs = deaf, fails, hangs
        self.sets = 0

    def now(self):
        return self.host_ns

    async def read_ns(self):
        if self.hangs and self.sets:
            raise VmfleetError("no agent answered")
        self.host_ns += 2_000_000  # there
        answer = self.host_ns + self.skew_ns
        self.host_ns += 2_000_000  # and back
        return answer

    async def set_ns(self, now):
        self.sets += 1
        self.host_ns += 2_000_000
        if not self.deaf:
            self.skew_ns = now - self.host_ns
        self.host_ns += self.slow_ns
        if self.fails:
            raise VmfleetError("hwclock failed")


def test_a_clock_is_read_in_the_middle_of_the_way_there_and_back():
    assert skew_seconds(105 * SECOND, 100 * SECOND, 102 * SECOND) == 4.0


@pytest.mark.parametrize(
    ("clock", "sets", "after", "error"),
    [
        (ModelClock(0.05), 0, 0.05, None),
        (ModelClock(-0.3), 1, 0.0, None),
        (ModelClock(-3612.4), 1, 0.0, None),
        (ModelClock(86400), 1, 0.0, None),
        (ModelClock(-60, slow_seconds=9), 1, 0.0, None),
        (ModelClock(-60, deaf=True), 3, -60.0, None),
        (ModelClock(-60, fails=True), 1, 0.0, "hwclock failed"),
        (ModelClock(-60, fails=True, hangs=True), 1, None, "hwclock failed"),
        (ModelClock(-60, hangs=True), 1, None, "no agent answered"),
    ],
    ids=[
        "right",
        "a little off",
        "behind",
        "ahead",
        "slow hwclock",
        "never set",
        "no hwclock",
        "no hwclock, and silent then",
        "silent then",
    ],
)
def test_a_clock_is_set_until_it_is_right(clock, sets, after, error):
    before = clock.skew_ns / SECOND
    report = asyncio.run(synchronize(clock, clock.now))
    assert report.skew_before_seconds == before
    assert (clock.sets, report.skew_after_seconds, report.error) == (sets, after, error)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (ClockReport("absent"), None),
        (ClockReport("answered", -60.0, 0.004), None),
        (ClockReport("answered", -60.0, -60.0, "hwclock failed"), "is -60.0 s off: hwclock failed"),
        (ClockReport("silent", error="no agent answered within 5 s"), "was not set: no agent"),
    ],
)
def test_a_clock_that_stays_wrong_is_a_warning(report, words):
    found = Presence(True, report).warnings
    assert (found == ()) if words is None else words in found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.5:22", ("10.0.0.5", 22)),
        ("[fe80::1]:443", ("fe80::1", 443)),
        ("web:80", ("web", 80)),
    ],
)
def test_a_port_is_named_with_its_host(text, expected):
    assert parse_tcp(text) == expected


@pytest.mark.parametrize(
    "text", ["22", "web:", ":22", "web:ssh", "web:0", "web:65536", "web..example:80"]
)
def test_what_names_no_port_is_refused(text):
    with pytest.raises(Refused, match=r"ready_check\.tcp"):
        parse_tcp(text)


def test_options_become_what_is_wanted():
    assert wanted_of(True, None) == Wanted()
    assert wanted_of(False, {"tcp": "a:1", "agent": True, "timeout": 5}) == Wanted(
        False, ("a", 1), True, 5.0
    )


# The agent's own protocol.


def synchronized(request):
    return b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode() + b"\n"


async def talk(path, answers, seconds=2.0, use=Agent.time_ns):
    """What a conversation comes to with an agent that gives these answers, one a request."""
    left = list(answers)

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for answer in left:
                line = await reader.readuntil(b"\n")
                if isinstance(answer, float):
                    await asyncio.sleep(answer)
                    answer = b'{"return": {}}\n'
                request = json.loads(line.lstrip(b"\xff"))
                said = answer(request) if callable(answer) else answer
                writer.write(said)
                await writer.drain()
            await asyncio.sleep(30)

    server = await asyncio.start_unix_server(serve, path)
    try:
        agent = await Agent.open(str(path), seconds)
        try:
            return await use(agent)
        finally:
            agent.close()
    finally:
        server.close()


def test_an_agent_is_asked(tmp_path):
    assert asyncio.run(talk(tmp_path / "a", [synchronized, b'{"return": 7}\n'])) == 7


def test_what_somebody_else_left_unread_comes_first_and_counts_for_nothing(tmp_path):
    def late(request):
        return b'{"return": 1}\n\xff{"return": 2}\n{"half' + synchronized(request)

    assert asyncio.run(talk(tmp_path / "a", [late, b'{"return": 7}\n'])) == 7


@pytest.mark.parametrize(
    ("answers", "state", "words"),
    [
        ([], "silent", "no agent answered within 0.2 s"),
        ([b"garbage\n"], "silent", "no agent answered"),
        ([synchronized, b"no JSON\n"], "silent", "did not answer guest-get-time"),
        ([synchronized, b'"text"\n'], "silent", "did not answer guest-get-time"),
        ([synchronized, b"[" * 200_000 + b"\n"], "silent", "did not answer guest-get-time"),
        ([synchronized, b"x" * (3 << 20)], "silent", "did not answer guest-get-time"),
        ([synchronized, b'{"return": {}}\n'], "refused", "what the agent told is no time"),
        ([synchronized, b'{"return": 1e999}\n'], "refused", "what the agent told is no time"),
        ([synchronized, b'{"return": 1%s}\n' % (b"0" * 400)], "refused", "is no time"),
        ([synchronized, b'{"error": "a\\u001b[2Jb"}\n'], "refused", r"guest-get-time: a \[2Jb$"),
        (
            [synchronized, b'{"error": {"class": "CommandNotFound", "desc": "disabled"}}\n'],
            "refused",
            "refused guest-get-time: disabled",
        ),
    ],
    ids=[
        "asleep",
        "garbage",
        "broken",
        "no object",
        "without an end",
        "too much",
        "no number",
        "endless",
        "of no age",
        "an error that is none",
        "disabled",
    ],
)
def test_an_agent_that_does_not_answer_well_is_told(tmp_path, answers, state, words):
    with pytest.raises(AgentError, match=words) as failed:
        asyncio.run(talk(tmp_path / "a", answers, 0.2))
    assert failed.value.state == state


def test_an_answer_that_comes_late_is_not_taken_for_the_next_one(tmp_path):
    async def use(agent):
        with pytest.raises(AgentError, match=r"did not answer guest-set-time within 0\.1 s"):
            await agent.set_time_ns(5, 0.1)
        return await agent.time_ns()

    answers = [synchronized, 0.3, synchronized, b'{"return": 7}\n']
    assert asyncio.run(talk(tmp_path / "a", answers, use=use)) == 7


def test_a_socket_that_is_not_there_is_told_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(AgentError, match="cannot be reached"):
        asyncio.run(Agent.open(str(tmp_path / "none"), 30))
    assert time.monotonic() - began < 20
