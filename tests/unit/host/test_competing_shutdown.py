# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shutdown of the host that was scheduled before the suspend."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import starters
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_shutdown import (
    scheduled,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    Observed,
    ScheduledShutdown,
)

AT_SIX = ScheduledShutdown("2026-11-29T06:00:00Z", "poweroff")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USEC=1795932000000000\nWARN_WALL=1\nMODE=poweroff\nWALL_MESSAGE=a\\=b\n", AT_SIX),
        ("USEC=1795932000000000\nMODE=dry-poweroff\n", None),
        ("USEC=soon\nMODE=reboot\n", None),
        ("USEC=1795932000000000\n", None),
        ("", None),
    ],
    ids=["scheduled", "only rehearsed", "no time", "no mode", "no file"],
)
def test_what_logind_wrote_down(text, expected):
    assert scheduled(text) == expected


def test_it_is_told_with_its_time_and_never_blocks():
    (told,) = starters(Observed((), shutdown=AT_SIX))
    assert (told.kind, told.blocks, told.can_disable) == ("host_shutdown", False, False)
    assert "2026-11-29T06:00:00Z (poweroff)" in told.what
    assert "shutdown -c" in told.advice
