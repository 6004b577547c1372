# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who competes for the guests of a host, and whether that blocks a suspend: the decisions."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import starters
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_libvirt import (
    auto_shutdown,
    autostart,
    libvirt_guests,
    listed_in,
    settings_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    AutoShutdown,
    GuestUnit,
    LibvirtGuests,
    Observed,
    SeenAgent,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._systemd_unit import Unit

SYSTEM = "qemu:///system"
UUID = "5e0b7fd5-0d33-4f5e-9cf4-9f0c1f6c4a11"
OTHER_UUID = "0a6d9f1e-54d5-4b6e-8f3c-6a4f7a0f2b22"


def domain(name="web", uri=SYSTEM, persistent=True, autostart=False, uuid=UUID):
    source = Source(uri=uri, domain=name)
    return HostGuest(
        name, uuid, source, "running", None, 1, None, None, autostart=autostart,
        persistent=persistent,
    )  # fmt: skip


def over_qmp(name="lone"):
    return HostGuest(name, None, Source(qmp_socket="/run/q"), "running", 7, 1, None, None)


def verdict(found):
    """(blocks, can_disable, handled) of the only one; None of none."""
    assert len(found) <= 1
    return (found[0].blocks, found[0].can_disable, found[0].handled) if found else None


BLOCKS = (True, False, False)
BLOCKS_UNLESS_DISABLED = (True, True, False)
TOLD = (False, False, False)
HANDLED = (False, False, True)
HANDLED_AND_STILL_TO_PUT_BACK = (False, True, True)

# --- autostart -------------------------------------------------------------------------------


def test_autostart_is_the_saves_own_matter_and_names_its_domains():
    found = autostart([domain("a", autostart=True), domain("b"), over_qmp()])
    assert (verdict(found), found[0].guests) == (HANDLED, ("a",))


def test_without_autostart_there_is_nothing_to_tell():
    assert autostart([domain(), over_qmp()]) == []


# --- libvirt-guests --------------------------------------------------------------------------

ACTIVE = LibvirtGuests("active", True, True, {}, frozenset(), False)
STOPPED = dataclasses.replace(ACTIVE, state="inactive")
LISTED = frozenset({UUID})
IGNORE = {"ON_BOOT": "ignore"}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        pytest.param(ACTIVE, BLOCKS_UNLESS_DISABLED, id="active"),
        pytest.param(
            dataclasses.replace(ACTIVE, enabled=False), BLOCKS_UNLESS_DISABLED, id="not enabled"
        ),
        pytest.param(dataclasses.replace(ACTIVE, systemd=False), BLOCKS, id="another init"),
        pytest.param(
            dataclasses.replace(ACTIVE, switched_off=True),
            HANDLED_AND_STILL_TO_PUT_BACK,
            id="switched off before",
        ),
        *(
            pytest.param(dataclasses.replace(ACTIVE, state=state), BLOCKS, id=state)
            for state in ("activating", "deactivating", "reloading")
        ),
        pytest.param(
            dataclasses.replace(ACTIVE, state="deactivating", switched_off=True),
            BLOCKS,
            id="stopping although switched off",
        ),
        pytest.param(STOPPED, TOLD, id="starts at boot, with an empty list"),
        pytest.param(dataclasses.replace(STOPPED, state="failed"), TOLD, id="failed"),
        pytest.param(dataclasses.replace(STOPPED, enabled=False), None, id="neither"),
        pytest.param(dataclasses.replace(STOPPED, listed=LISTED), BLOCKS, id="listed"),
        pytest.param(dataclasses.replace(ACTIVE, listed=LISTED), BLOCKS, id="active, listed"),
        pytest.param(
            dataclasses.replace(ACTIVE, listed=LISTED, switched_off=True),
            BLOCKS,
            id="switched off, but its start would still read the list",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, listed=frozenset({OTHER_UUID})), TOLD, id="others listed"
        ),
        pytest.param(
            dataclasses.replace(STOPPED, listed=LISTED, settings=IGNORE),
            TOLD,
            id="listed, and its start starts nothing",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, listed=LISTED, enabled=False),
            None,
            id="listed, never read",
        ),
    ],
)
def test_libvirt_guests_blocks_while_it_may_stop_these_guests_or_start_them_again(
    service, expected
):
    assert verdict(libvirt_guests(service, [domain()])) == expected


def test_only_the_listed_guests_are_named_when_the_list_is_the_trouble():
    guests = [domain("listed", uuid=UUID.upper()), domain("other", uuid=OTHER_UUID)]
    found = libvirt_guests(dataclasses.replace(STOPPED, listed=LISTED), guests)
    assert found[0].guests == ("listed",)
    assert "restart libvirt-guests" in found[0].advice


@pytest.mark.parametrize(
    ("settings", "guest", "seen"),
    [
        ({}, domain(), True),
        ({}, domain(uri="qemu+unix:///system?socket=/run/s"), True),
        ({}, domain(uri="qemu:///session"), False),
        ({}, over_qmp(), False),
        ({"URIS": "qemu:///session"}, domain(), False),
        ({"URIS": "default qemu:///session"}, domain(uri="qemu:///session"), True),
        ({"URIS": "xen:///system"}, domain(), False),
        ({"URIS": ""}, domain(), False),
        ({}, domain(persistent=False), True),
        ({"ON_SHUTDOWN": "shutdown"}, domain(persistent=False), True),
        ({"ON_SHUTDOWN": "suspend"}, domain(persistent=False), False),
        ({"ON_SHUTDOWN": "suspend"}, domain(), True),
        ({"ON_SHUTDOWN": "suspend", "PERSISTENT_ONLY": "false"}, domain(persistent=False), True),
        ({"ON_SHUTDOWN": "shutdown", "PERSISTENT_ONLY": "true"}, domain(persistent=False), False),
    ],
)
def test_libvirt_guests_sees_the_domains_that_it_is_configured_for(settings, guest, seen):
    service = dataclasses.replace(ACTIVE, settings=settings)
    names = [starter.guests for starter in libvirt_guests(service, [guest])]
    assert names == ([(guest.name,)] if seen else [])


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("#ON_BOOT=start\n", {}),
        ("ON_BOOT=ignore\n", {"ON_BOOT": "ignore"}),
        ("ON_BOOT='ignore' # no\n", {"ON_BOOT": "ignore"}),
        ('URIS="default xen:///system"\n', {"URIS": "default xen:///system"}),
        ("ON_BOOT=start\n  export ON_BOOT=ignore\n", {"ON_BOOT": "ignore"}),
        ("URIS=\n", {"URIS": ""}),
        ("ON_BOOT='start\n", {"ON_BOOT": "'start"}),
        ("echo ON_BOOT=start\n", {}),
    ],
)
def test_its_configuration_is_read_as_a_shell_would(text, settings):
    assert settings_of(text) == settings


def test_its_list_has_a_daemon_and_then_guests_on_each_line():
    text = f"default {UUID.upper()} {OTHER_UUID}\nxen:///system 1\n"
    assert listed_in(text) == {UUID, OTHER_UUID, "1"}


# --- auto_shutdown_* -------------------------------------------------------------------------

SAVE, SHUTDOWN, POWEROFF, RESTORE = (
    f"auto_shutdown_{name}" for name in ("try_save", "try_shutdown", "poweroff", "restore")
)


@pytest.mark.parametrize(
    ("settings", "guest", "words"),
    [
        ({}, domain(), None),
        ({SAVE: "none"}, domain(), None),
        ({SAVE: "persistent"}, domain(), "saves"),
        ({SAVE: "persistent"}, domain(persistent=False), None),
        ({SHUTDOWN: "transient"}, domain(), None),
        ({SHUTDOWN: "transient"}, domain(persistent=False), "shuts down"),
        ({SHUTDOWN: "all", POWEROFF: "all"}, domain(), "shuts down or powers off"),
        ({SAVE: "persistent"}, over_qmp(), None),
        ({}, domain(uri="qemu:///session"), "saves or shuts down or powers off"),
        ({SAVE: "none", SHUTDOWN: "none", POWEROFF: "none"}, domain(uri="qemu:///session"), None),
    ],
)
def test_what_the_daemon_does_at_the_hosts_shutdown_is_told_and_never_blocks(
    settings, guest, words
):
    found = auto_shutdown(AutoShutdown("/etc/libvirt/qemu.conf", settings), [guest])
    assert verdict(found) == (None if words is None else TOLD)
    assert words is None or f"libvirt {words} guests that run" in found[0].what


@pytest.mark.parametrize(
    ("restore", "told"), [({}, True), ({RESTORE: 1}, True), ({RESTORE: 0}, False)]
)
def test_that_the_daemon_starts_them_again_is_told(restore, told):
    seen = AutoShutdown("/etc/libvirt/qemu.conf", {SAVE: "persistent", **restore})
    assert ("starts them again" in auto_shutdown(seen, [domain()])[0].what) is told


def test_a_qemu_conf_that_cannot_be_read_is_told():
    seen = AutoShutdown("/q.conf", {}, "/q.conf:3: = was expected after x")
    found = auto_shutdown(seen, [domain()])
    assert verdict(found) == TOLD
    assert "not known, as /q.conf:3: = was expected after x." in found[0].what


# --- all together ----------------------------------------------------------------------------


def test_those_that_block_come_first():
    observed = Observed(
        (domain(autostart=True),),
        libvirt_guests=ACTIVE,
        auto_shutdown=AutoShutdown("/q.conf", {SAVE: "persistent"}),
        units=(
            GuestUnit("lone", Unit("guest.service"), "always", ("multi-user.target",), True, False),
        ),
        agents=(SeenAgent("Pacemaker", True, None),),
    )
    found = [(one.kind, one.blocks) for one in starters(observed)]
    assert found == [
        ("libvirt_guests", True),
        ("unit_start", True),
        ("ha_agent", True),
        ("libvirt_autostart", False),
        ("auto_shutdown", False),
        ("unit_restart", False),
    ]


def test_nobody_competes_on_a_quiet_host():
    assert starters(Observed((over_qmp(), domain()), auto_shutdown=AutoShutdown("/q", {}))) == ()


def test_a_starter_is_told_in_plain_values():
    (found,) = autostart([domain("a", autostart=True)])
    told = found.as_dict()
    assert told["guests"] == ["a"]
    assert {"kind", "name", "what", "blocks", "can_disable", "advice", "handled"} < set(told)
