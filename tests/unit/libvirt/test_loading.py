# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load that is given up: what it destroys, and what it leaves alone."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._connection import Connection

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
RUNNING, PAUSED, SHUTOFF = 1, 3, 5
BY_USER, STARTING_UP, FROM_SNAPSHOT = 1, 11, 7


class Daemon:
    """One domain, in one state."""

    def __init__(self, state, reason):
        self._state = [state, reason]
        self.destroyed = False

    def lookupByUUIDString(self, uuid):  # libvirt's name
        assert uuid == UUID
        return self

    def state(self):
        return self._state

    def destroy(self):
        self.destroyed = True


@pytest.mark.parametrize(
    ("state", "reason", "destroyed"),
    [
        pytest.param(PAUSED, STARTING_UP, True, id="being-loaded"),
        pytest.param(PAUSED, BY_USER, False, id="paused-by-an-operator"),
        pytest.param(PAUSED, FROM_SNAPSHOT, False, id="paused-by-a-snapshot"),
        pytest.param(RUNNING, BY_USER, False, id="running"),
        pytest.param(SHUTOFF, STARTING_UP, False, id="gone"),
    ],
)
def test_only_a_domain_that_never_ran_is_destroyed(state, reason, destroyed):
    daemon = Daemon(state, reason)
    connection = Connection("qemu:///system", daemon, daemon, 11_003_000)
    assert connection._give_up(UUID) is destroyed
    assert daemon.destroyed is destroyed
