# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Run states: which guest may be saved, and which QEMU waits for a restore.

Source: QEMU qapi/run-state.json and qapi/migration.json of 10.0, spec/qemu.md 3.1-3.3.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

WAITING = "inmigrate"


@dataclass(frozen=True)
class SaveDecision:
    """Whether a guest in this run state may be saved.

    ``was_running`` goes into the header and says whether an undone save continues the guest;
    ``refusal``: why not and what to do, in words that follow "run state X: "; empty when allowed.
    """

    allowed: bool
    was_running: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class RestoreDecision:
    """Whether a QEMU in this run state waits for a stream; ``refusal`` as in `SaveDecision`."""

    allowed: bool
    refusal: str = ""


@dataclass(frozen=True)
class _RunState:
    """One row: what the state means for a save, and for a QEMU to restore into.

    ``save``: True (saved as running), False (saved as stopped) or why it is refused.
    """

    save: bool | str
    restore: str


_BUSY_MIGRATING = "a migration is using it; use another QEMU"
_HOLDS_A_GUEST = (
    "it holds a guest of its own; start another QEMU with -incoming defer, or give argv"
)

_RUN_STATES: t.Mapping[str, _RunState] = {
    "running": _RunState(True, _HOLDS_A_GUEST),
    "paused": _RunState(False, _HOLDS_A_GUEST),
    "prelaunch": _RunState(
        False, "it was started without -incoming defer and waits for cont; start it with that"
    ),
    "inmigrate": _RunState(
        "it is itself waiting for, or loading, a saved guest; finish or end that restore first", ""
    ),
    "postmigrate": _RunState(
        "its state was already migrated or saved and must not run twice: where a copy of it exists "
        "and is wanted, end this QEMU; where none does, continue it (cont)",
        "its own guest was saved or migrated away and is still in memory; end it or use another",
    ),
    "finish-migrate": _RunState(
        "a migration or a save of it is just ending; wait until query-status says postmigrate",
        _BUSY_MIGRATING,
    ),
    "save-vm": _RunState(
        "an internal snapshot of it is being written; wait until that has ended",
        "it is writing an internal snapshot of its own guest; use another QEMU",
    ),
    "restore-vm": _RunState(
        "an internal snapshot is being loaded into it; wait until that has ended",
        "it is loading an internal snapshot; use another QEMU",
    ),
    "colo": _RunState(
        "it is half of a COLO pair, whose state changes all the time; end the replication first",
        "it is half of a COLO pair; use another QEMU",
    ),
    "suspended": _RunState(
        "it sleeps (ACPI S3), and a restore only continues guests, it does not wake them; wake it "
        "with system_wakeup, then save it",
        _HOLDS_A_GUEST,
    ),
    "shutdown": _RunState(
        "it was shut down and there is nothing to save; end this QEMU, or start the guest anew "
        "with system_reset and cont",
        "its own guest was shut down; end it and start another QEMU with -incoming defer",
    ),
    "guest-panicked": _RunState(
        "its kernel has crashed and an image would only bring back the crash; take a dump "
        "(dump-guest-memory) or reset it (system_reset)",
        _HOLDS_A_GUEST,
    ),
    "io-error": _RunState(
        "a disk request failed and is pending; mend the storage and continue it (cont), then "
        "save it",
        _HOLDS_A_GUEST,
    ),
    "internal-error": _RunState(
        "QEMU or the hypervisor stopped it after an error it cannot continue from; reset it "
        "(system_reset) or end this QEMU",
        "it has stopped after an internal error; end it and start another",
    ),
    "watchdog": _RunState(
        "its watchdog stopped it because the guest hangs; continue it (cont) or reset it "
        "(system_reset) first",
        _HOLDS_A_GUEST,
    ),
    "debug": _RunState(
        "a debugger holds it; detach the debugger and let it continue, then save it",
        "a debugger holds it; detach the debugger first",
    ),
}

_BUSY_STATUSES: t.Mapping[str, str] = {
    "setup": "is being set up",
    "active": "is running",
    "device": "is writing its device state",
    "pre-switchover": "is held at pre-switchover and waits for migrate-continue",
    "cancelling": "is being cancelled",
    "wait-unplug": "waits for devices to be unplugged",
    "postcopy-active": "is running in postcopy",
    "postcopy-paused": "is held in postcopy after its link broke",
    "postcopy-recover-setup": "is being recovered in postcopy",
    "postcopy-recover": "is being recovered in postcopy",
    "colo": "replicates it continuously (COLO)",
}
_IDLE_STATUSES = frozenset({"none", "completed", "failed", "cancelled"})


def save_decision(run_state: str) -> SaveDecision:
    """Whether a guest in ``run_state`` (query-status) may be saved. A state that this table does
    not know is refused by name."""
    row = _RUN_STATES.get(run_state)
    if row is None:
        return SaveDecision(
            False, refusal=f"this collection does not know the run state {run_state}"
        )
    if isinstance(row.save, str):
        return SaveDecision(False, refusal=row.save)
    return SaveDecision(True, was_running=row.save)


def restore_decision(run_state: str) -> RestoreDecision:
    """Whether a QEMU in ``run_state`` waits for an incoming stream (-incoming defer)."""
    row = _RUN_STATES.get(run_state)
    if row is None:
        return RestoreDecision(
            False, refusal=f"this collection does not know the run state {run_state}"
        )
    return RestoreDecision(run_state == WAITING, refusal=row.restore)


def migration_status_blocks(status: str | None) -> str | None:
    """Why a save cannot start while query-migrate reports ``status``; None when it can.

    QEMU omits the status when nothing was ever migrated.
    """
    if status is None or status in _IDLE_STATUSES:
        return None
    if status in _BUSY_STATUSES:
        return (
            f"a migration of it {_BUSY_STATUSES[status]} (status {status}); wait for its end or "
            "cancel it (migrate_cancel)"
        )
    return f"it has a migration in a status that this collection does not know: {status}"
