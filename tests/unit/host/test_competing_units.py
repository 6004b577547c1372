# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units that would start a guest again, and whether that blocks a suspend."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_units import (
    unit_restart,
    unit_start,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    GuestUnit,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_unit import Unit


def verdict(found):
    """(blocks, can_disable, handled) of the only one; None of none."""
    assert len(found) <= 1
    return (found[0].blocks, found[0].can_disable, found[0].handled) if found else None


BLOCKS = (True, False, False)
BLOCKS_UNLESS_DISABLED = (True, True, False)
HANDLED = (False, False, True)
HANDLED_AND_STILL_TO_PUT_BACK = (False, True, True)

GUEST = Unit("guest.service")
USERS = Unit("guest.service", 1000)


@pytest.mark.parametrize(
    ("restart", "named", "expected"),
    [
        ("no", False, None),
        ("no", True, None),
        ("always", False, BLOCKS),
        ("on-failure", False, BLOCKS),
        (None, False, BLOCKS),
        ("always", True, HANDLED),
        (None, True, HANDLED),
    ],
)
def test_a_unit_that_restarts_blocks_unless_the_save_is_to_stop_it(restart, named, expected):
    seen = GuestUnit("lone", GUEST, restart, (), named, held=False)
    found = unit_restart(seen)
    assert verdict(found) == expected
    if expected == BLOCKS:
        assert "systemd_unit: guest.service" in found[0].advice


@pytest.mark.parametrize(
    ("unit", "started_by", "held", "expected"),
    [
        (GUEST, (), False, None),
        (GUEST, ("multi-user.target",), False, BLOCKS_UNLESS_DISABLED),
        (GUEST, ("guest.socket",), False, BLOCKS_UNLESS_DISABLED),
        (GUEST, ("multi-user.target",), True, HANDLED_AND_STILL_TO_PUT_BACK),
        (USERS, ("default.target",), False, BLOCKS),
    ],
)
def test_a_unit_that_starts_with_the_host_blocks_unless_it_is_held(
    unit, started_by, held, expected
):
    found = unit_start(GuestUnit("lone", unit, "no", started_by, named=True, held=held))
    assert verdict(found) == expected
    assert not found or started_by[0] in found[0].what


def test_the_advice_for_a_users_unit_speaks_to_the_users_systemd():
    found = unit_start(GuestUnit("lone", USERS, "no", ("default.target",), False, False))
    assert "`systemctl --user disable guest.service`" in found[0].advice
