# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run states: the whole table, state by state."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._run_states import (
    migration_status_blocks,
    restore_decision,
    save_decision,
)

# Every value of RunState in QEMU 10.0.
RUN_STATES = {
    "colo",
    "debug",
    "finish-migrate",
    "guest-panicked",
    "inmigrate",
    "internal-error",
    "io-error",
    "paused",
    "postmigrate",
    "prelaunch",
    "restore-vm",
    "running",
    "save-vm",
    "shutdown",
    "suspended",
    "watchdog",
}
SAVED = {"running": True, "paused": False, "prelaunch": False}


@pytest.mark.parametrize(("run_state", "was_running"), SAVED.items())
def test_a_healthy_guest_is_saved_and_continued_only_if_it_ran(
    run_state: str, was_running: bool
) -> None:
    decision = save_decision(run_state)
    assert (decision.allowed, decision.was_running, decision.refusal) == (True, was_running, "")


@pytest.mark.parametrize(
    ("run_state", "advice"),
    [
        ("colo", "end the replication"),
        ("debug", "detach the debugger"),
        ("finish-migrate", "wait until query-status says postmigrate"),
        ("guest-panicked", "dump-guest-memory"),
        ("inmigrate", "finish or end that restore"),
        ("internal-error", "system_reset"),
        ("io-error", "mend the storage"),
        ("postmigrate", "cont"),
        ("restore-vm", "wait"),
        ("save-vm", "wait"),
        ("shutdown", "nothing to save"),
        ("suspended", "system_wakeup"),
        ("watchdog", "cont"),
    ],
)
def test_every_other_state_is_refused_with_advice_of_its_own(run_state: str, advice: str) -> None:
    decision = save_decision(run_state)
    assert not decision.allowed
    assert not decision.was_running
    assert advice in decision.refusal


def test_no_two_states_share_a_refusal() -> None:
    refusals = [save_decision(run_state).refusal for run_state in RUN_STATES - set(SAVED)]
    assert len(set(refusals)) == len(refusals) == 13


def test_only_a_qemu_in_inmigrate_waits_for_a_restore() -> None:
    assert {state for state in RUN_STATES if restore_decision(state).allowed} == {"inmigrate"}
    assert restore_decision("inmigrate").refusal == ""
    assert all(restore_decision(state).refusal for state in RUN_STATES - {"inmigrate"})


def test_an_unknown_state_is_refused_by_name() -> None:
    for decision in (save_decision("dreaming"), restore_decision("dreaming")):
        assert not decision.allowed
        assert "dreaming" in decision.refusal


@pytest.mark.parametrize("status", [None, "none", "completed", "failed", "cancelled"])
def test_an_ended_migration_does_not_block_a_save(status: str | None) -> None:
    assert migration_status_blocks(status) is None


@pytest.mark.parametrize(
    "status",
    [
        "setup",
        "active",
        "device",
        "pre-switchover",
        "cancelling",
        "wait-unplug",
        "postcopy-active",
        "postcopy-paused",
        "postcopy-recover-setup",
        "postcopy-recover",
        "colo",
    ],
)
def test_a_migration_in_flight_blocks_a_save_and_says_how_to_end_it(status: str) -> None:
    reason = migration_status_blocks(status)
    assert reason is not None
    assert f"(status {status})" in reason
    assert "migrate_cancel" in reason


def test_an_unknown_migration_status_blocks_a_save_by_name() -> None:
    reason = migration_status_blocks("teleporting")
    assert reason is not None
    assert "teleporting" in reason
