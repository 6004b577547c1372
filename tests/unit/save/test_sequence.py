# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole save over a model QEMU: the order of commands, and what is in the store meanwhile."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    described,
    model_guest,
    once,
    write_stream,
)
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import CAPABILITIES
from ansible_collections.vmfleet.suspend.tests.support.save_checks import (
    save,
    settings,
    store_of,
)

BEFORE_MIGRATE = ["add-fd", "migrate-set-parameters", "migrate-set-capabilities"]
PUT_BACK = ["migrate-set-capabilities", "migrate-set-parameters"]


# The order of commands.


@pytest.mark.parametrize(
    ("guest_state", "end"),
    [
        ("stopped", [*PUT_BACK, "quit"]),
        ("paused", [*PUT_BACK, "remove-fd"]),
        ("running", [*PUT_BACK, "cont", "remove-fd"]),
    ],
)
def test_the_vcpus_stop_last_of_all_and_nothing_comes_between_that_and_migrate(
    guest, image, guest_state, end
):
    result = save(guest, image, guest_state=guest_state)
    assert guest.commands == [*BEFORE_MIGRATE, "stop", "migrate", *end]
    assert result["changed"] is True


def test_a_guest_that_was_paused_is_not_stopped(paused_guest, image):
    save(paused_guest, image)
    assert paused_guest.commands == [*BEFORE_MIGRATE, "migrate", *PUT_BACK, "quit"]
    assert described(image).was_running is False


def test_every_capability_that_qemu_offers_is_set_by_name(guest, image):
    guest.qemu.settings.capabilities["auto-converge"] = True
    save(guest, image)
    command = next(c for c in guest.monitor.commands if c.name == "migrate-set-capabilities")
    states = {entry["capability"]: entry["state"] for entry in command.arguments["capabilities"]}
    assert states.keys() == CAPABILITIES.keys()
    assert {name for name, on in states.items() if on} == {"events", "mapped-ram", "multifd"}


@pytest.mark.parametrize("guest_state", ["paused", "running"])
def test_a_qemu_that_lives_on_has_its_settings_back_and_no_fdset(guest, image, guest_state):
    guest.qemu.settings.capabilities["auto-converge"] = True
    guest.qemu.settings.parameters["max-bandwidth"] = 12345
    before = settings(guest)
    save(guest, image, guest_state=guest_state)
    assert settings(guest) == before
    assert guest.qemu.fdsets == {}


def test_the_stream_begins_where_the_header_says(guest, image):
    offsets = []

    def writer(fd, offset_bytes):
        offsets.append(offset_bytes)
        write_stream(fd, offset_bytes)

    guest.qemu.writer = writer
    save(guest, image)
    assert offsets == [described(image).data_offset_bytes]
    assert offsets[0] % 4096 == 0


@pytest.mark.parametrize("run_state", ["running", "paused"])
def test_a_qemu_that_cuts_the_beginning_off_the_image_does_no_harm(tmp_path, image, run_state):
    """QEMU 8.2.0 to 8.2.5 and 9.0.0 to 9.0.1."""

    def writer(fd, offset_bytes):
        os.ftruncate(fd, 0)
        write_stream(fd, offset_bytes)

    with model_guest(tmp_path, run_state=run_state, writer=writer) as guest:
        assert save(guest, image)["guest"]["state"] == "stopped"
    assert (described(image).state, described(image).was_running) == (
        "ready",
        run_state == "running",
    )


def test_bypass_cache_gives_two_descriptors_and_direct_io(guest, image):
    given = []
    once(guest, "migrate", lambda: given.extend(guest.qemu.fdsets[0]))
    save(guest, image, bypass_cache=True)
    assert [(fd.access_mode, fd.direct) for fd in given] == [
        (os.O_WRONLY, False),
        (os.O_WRONLY, True),
    ]
    command = next(c for c in guest.monitor.commands if c.name == "migrate-set-parameters")
    assert command.arguments["direct-io"] is True
    assert not guest.qemu.crashed


# What is in the store meanwhile.


def test_the_beginning_of_the_image_is_there_before_qemu_hears_of_anything(guest, image, store):
    seen = []
    once(guest, "add-fd", lambda: seen.append(store_of(store)))
    save(guest, image)
    assert seen == [{".guest.save.partial": "partial"}]


def test_the_image_is_published_before_qemu_is_quit(guest, image, store):
    seen = []
    once(guest, "quit", lambda: seen.append(store_of(store)), first=True)
    save(guest, image)
    assert seen == [{"guest.save": "ready"}]


def test_the_image_is_spent_before_the_guest_continues(guest, image, store):
    seen = []
    once(guest, "cont", lambda: seen.append(store_of(store)))
    save(guest, image, guest_state="running")
    assert seen == [{"guest.save": "spent"}]


# Refused before anything was touched.


def test_what_is_refused_touches_neither_guest_nor_store(guest, image, store):
    guest.qemu.blocked_reasons = ["non-migratable device: nvme"]
    with pytest.raises(Refused, match="nvme"):
        save(guest, image)
    assert guest.commands == []
    assert list(store.iterdir()) == []


def test_check_mode_sends_only_questions_and_writes_nothing(guest, image, store):
    assert save(guest, image, check_mode=True)["changed"] is True
    assert guest.commands == []
    assert list(store.iterdir()) == []
