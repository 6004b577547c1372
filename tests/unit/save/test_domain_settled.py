# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain is looked at until libvirt is done with it, through a restart of the daemon."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import LibvirtError
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._domain import Domain
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _domain_settled

UUID = "0f4e8d0c-1c1f-4d2a-9a57-8c1d6f0f2c11"
UNREACHABLE = LibvirtError("Looking", "Connection refused", 38)
UNCLEAR = LibvirtError("Looking", "Timed out during operation", 68)


def domain(state: str, **more: Any) -> Domain:
    known = Domain("tiny", UUID, state, True, False, False, memory_bytes=1 << 20)
    return replace(known, **more)


class Looks:
    """A connection that sees one thing after the other, and the last of them for ever."""

    def __init__(self, *seen: Domain | LibvirtError | None) -> None:
        self.seen = list(seen)
        self.looks = 0

    async def find(self, uuid: str) -> Domain | None:
        self.looks += 1
        now = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(now, LibvirtError):
            raise now
        return now

    async def again(self) -> bool:
        return self.seen[0] is not UNREACHABLE


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for name, seconds in (("_WAIT", 0.3), ("_BACK", 0.1), ("_LOOK", 0.01)):
        monkeypatch.setattr(_domain_settled, f"{name}_SECONDS", seconds)


RUNNING = domain("running")
SAVING = domain("paused", job=True)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([RUNNING], (RUNNING, True)),
        ([None], (None, True)),
        ([SAVING, SAVING, RUNNING], (RUNNING, True)),
        ([domain("paused", starting=True), RUNNING], (RUNNING, True)),
        # The daemon crashed, was started again, and takes its save back.
        ([UNREACHABLE, UNREACHABLE, domain("paused", held_to_save=True), RUNNING], (RUNNING, True)),
        ([SAVING, UNREACHABLE, domain("shutoff")], (domain("shutoff"), True)),
        ([domain("paused")], (domain("paused"), True)),
        ([domain("paused", held_to_save=True)], (domain("paused", held_to_save=True), True)),
        # Nothing is known of what goes on and on.
        ([SAVING], (SAVING, False)),
        ([RUNNING, UNREACHABLE], (RUNNING, True)),
        ([UNREACHABLE], (None, False)),
        ([SAVING, UNREACHABLE], (SAVING, False)),
        # It is reached, and has no answer.
        ([SAVING, UNCLEAR, UNCLEAR, RUNNING], (RUNNING, True)),
        ([SAVING, UNCLEAR], (SAVING, False)),
    ],
)
def test_it_is_known_when_libvirt_is_done(seen, expected):
    looks: Any = Looks(*seen)
    assert asyncio.run(_domain_settled.settled(looks, UUID)) == expected


@pytest.mark.parametrize(
    ("silent", "longer_than_it_waits_for_a_daemon"), [(UNREACHABLE, False), (UNCLEAR, True)]
)
def test_a_daemon_that_is_reached_is_asked_for_longer(silent, longer_than_it_waits_for_a_daemon):
    looks: Any = Looks(silent)
    asyncio.run(_domain_settled.settled(looks, UUID))
    most = _domain_settled._BACK_SECONDS / _domain_settled._LOOK_SECONDS + 2
    assert (looks.looks > most) == longer_than_it_waits_for_a_daemon
