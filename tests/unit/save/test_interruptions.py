# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves that are interrupted: by a signal, by the end of QEMU, by the loss of the link."""

from __future__ import annotations

import asyncio
import functools
import os
import signal

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _monitor
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import (
    _hold,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    break_link,
    described,
    once,
)
from ansible_collections.vmfleet.suspend.tests.support.save_checks import (
    assert_as_before,
    fails,
    save,
    settings,
    store_of,
)

# Interrupted by a signal, at each step.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("command", "after"),
    [
        ("migrate-set-parameters", None),
        ("add-fd", None),
        ("stop", None),
        ("query-block-jobs", "stop"),
        ("migrate", None),
        ("query-migrate", "migrate"),
    ],
)
def test_a_signal_undoes_the_save_at_any_step(guest, image, store, command, after, number):
    guest.qemu.ends_as = "never"
    before = settings(guest)
    once(guest, command, lambda: os.kill(os.getpid(), number), after=after)
    failed = fails(guest, image, signals=True)
    assert_as_before(guest, store, before, failed)
    assert "interrupted by a signal" in failed.message


def test_the_way_back_is_not_interrupted(guest, image, store):
    guest.qemu.ends_as = "never"
    before = settings(guest)
    for command in ("migrate", "migrate_cancel", "remove-fd", "cont"):
        once(guest, command, lambda: os.kill(os.getpid(), signal.SIGTERM))
    failed = fails(guest, image, signals=True)
    assert_as_before(guest, store, before, failed)


@pytest.mark.parametrize("command", ["query-fdsets", "remove-fd", "cont"])
def test_a_signal_that_comes_on_the_way_back_does_not_stop_it(guest, image, store, command):
    before = settings(guest)
    guest.monitor.expect("migrate").fails("GenericError", "State blocked")

    def interrupt():
        os.kill(os.getpid(), signal.SIGTERM)

    once(guest, command, interrupt, after="stop", first=True)
    failed = fails(guest, image, signals=True)
    assert_as_before(guest, store, before, failed)
    assert "State blocked" in failed.message


@pytest.mark.parametrize("command", ["migrate-set-capabilities", "quit"])
def test_after_publishing_a_signal_changes_nothing_any_more(guest, image, command):
    interrupt = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    once(guest, command, interrupt, after="migrate", first=True)
    result = save(guest, image, signals=True)
    assert result["guest"]["state"] == "stopped"
    assert described(image).state == "ready"


def test_a_signal_while_the_monitor_is_closed_is_not_told_as_one_before_anything_was_changed(
    guest, image, monkeypatch
):
    close = vars(_monitor.Monitor)["close"]

    async def interrupted(monitor):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        await close(monitor)

    monkeypatch.setattr(_monitor.Monitor, "close", interrupted)
    assert save(guest, image, signals=True)["guest"]["state"] == "stopped"
    assert described(image).state == "ready"


# QEMU dies, or the link to it.

STEPS = [
    ("migrate-set-parameters", None),
    ("migrate-set-capabilities", None),
    ("add-fd", None),
    ("stop", None),
    ("query-status", "stop"),
    ("query-block-jobs", "stop"),
    ("migrate", None),
]


@pytest.mark.parametrize(("command", "after"), [*STEPS, ("query-migrate", "migrate")])
def test_a_qemu_that_dies_is_reported_as_crashed_never_as_saved(
    guest, image, store, command, after
):
    once(guest, command, guest.crash, after=after)
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "crashed"
    assert "the guest's RAM is lost" in failed.message
    assert list(store.iterdir()) == []


def test_a_qemu_that_dies_while_it_settles_is_reported_as_crashed(guest, image, store):
    once(guest, "query-migrate", lambda: once(guest, "query-status", guest.crash), after="migrate")
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "crashed"
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(("command", "after"), STEPS)
def test_a_lost_link_is_mended_to_continue_the_guest(guest, image, store, command, after):
    before = settings(guest)
    once(guest, command, break_link, after=after)
    failed = fails(guest, image)
    # A set whose number was in the lost answer goes away with the client, which no model does.
    if command == "add-fd":
        guest.qemu.fdsets.clear()
    assert_as_before(guest, store, before, failed)
    assert f"broke during {command}" in failed.message


@pytest.mark.parametrize(("command", "after"), [s for s in STEPS if s[0] != "stop"])
def test_a_lost_link_does_not_continue_a_guest_that_was_paused(
    paused_guest, image, store, command, after
):
    once(paused_guest, command, break_link, after=after and "add-fd")
    fails(paused_guest, image)
    assert paused_guest.qemu.run_state == "paused"
    assert "cont" not in paused_guest.commands


def test_a_link_lost_during_the_migration_does_not_end_the_save(guest, image):
    once(guest, "query-migrate", break_link, after="migrate")
    assert save(guest, image)["changed"] is True
    assert described(image).state == "ready"


def test_a_monitor_that_never_comes_back_leaves_the_state_unknown(guest, image, store, monkeypatch):
    monkeypatch.setattr(_hold, "STOP_SECONDS", 0)

    def hang_up():
        guest.monitor._listener.shutdown(2)
        raise ConnectionAbortedError

    once(guest, "stop", hang_up)
    failed = fails(guest, image)
    assert failed.facts["guest"]["state"] == "unknown"
    assert f"{guest.qmp_socket} does not answer" in failed.message
    assert store_of(store) == {".guest.save.partial": "partial"}  # for the next run
