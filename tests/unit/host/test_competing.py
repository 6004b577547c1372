# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who competes, and what is done about it."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _competing_units
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import (
    AGENTS,
    Observed,
    Service,
    record_of,
    starters,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)


def a_domain(name="web01", **fields):
    source = Source(uri="qemu:///system", domain=name)
    return HostGuest(name, name, source, "running", 1, 1, 1, 1, **fields)


def a_qmp_guest(name="db01", **fields):
    return HostGuest(name, name, Source(qmp_socket="/q"), "running", 1, 1, 1, 1, **fields)


RUNS = Service("enabled", active=True)


@pytest.mark.parametrize(
    ("guests", "seen", "expected"),
    [
        pytest.param([a_domain()], Observed(), [], id="nobody"),
        pytest.param(
            [a_domain(autostart=True), a_domain("other")],
            Observed(),
            [("autostart", False, False, ("web01",))],
            id="autostart is held by each save",
        ),
        pytest.param(
            [a_domain()],
            Observed(libvirt_guests=RUNS),
            [("libvirt-guests", True, True, ())],
            id="libvirt-guests",
        ),
        pytest.param(
            [a_domain()],
            Observed(libvirt_guests=Service("disabled", active=True)),
            [("libvirt-guests", True, True, ())],
            id="libvirt-guests that was started by hand",
        ),
        pytest.param(
            [a_domain()], Observed(libvirt_guests=Service("masked", active=False)), [], id="masked"
        ),
        pytest.param(
            [a_qmp_guest()], Observed(libvirt_guests=RUNS), [], id="libvirt-guests without a domain"
        ),
        pytest.param(
            [a_domain()],
            Observed(auto_shutdown={"auto_shutdown_try_save": "all"}),
            [("auto_shutdown", True, True, ())],
            id="auto_shutdown",
        ),
        pytest.param(
            [a_domain()],
            Observed(auto_shutdown={"auto_shutdown_try_save": "none"}),
            [],
            id="auto_shutdown that does nothing",
        ),
        pytest.param(
            [a_qmp_guest(unit="db01.service")],
            Observed(restarts={"db01.service": "always"}),
            [("unit", False, True, ("db01",))],
            id="a unit that starts its guest again",
        ),
        pytest.param(
            [a_qmp_guest(unit="db01.service")],
            Observed(restarts={"db01.service": "no"}),
            [],
            id="a unit that does not",
        ),
        pytest.param(
            [a_qmp_guest()],
            Observed(agents=frozenset({"pacemakerd"})),
            [("ha-agent", True, False, ())],
            id="an agent",
        ),
    ],
)
def test_who_competes(guests, seen, expected):
    found = starters(guests, seen)
    assert [(s.kind, s.blocks, s.can_disable, s.guests) for s in found] == expected
    assert all(s.what and s.advice for s in found)


def test_what_is_switched_off_is_recorded_as_it_was():
    (starter,) = starters([a_domain()], Observed(libvirt_guests=RUNS))
    assert record_of(starter, Observed(libvirt_guests=RUNS)) == {
        "kind": "libvirt-guests",
        "name": "libvirt-guests.service",
        "enabled": "enabled",
        "active": True,
    }


def test_an_agent_is_seen_by_its_program(tmp_path):
    assert _competing_units.agents() & set(AGENTS) == set()
    for pid, program in (("12", "pacemakerd"), ("13", "bash")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{program}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "14").mkdir()  # just ended
    assert _competing_units.agents(str(tmp_path)) == {"pacemakerd"}


def test_an_agents_name_fits_where_it_is_looked_for():
    # /proc/PID/comm has room for 15 characters.
    assert all(len(program) <= 15 for program in AGENTS)
