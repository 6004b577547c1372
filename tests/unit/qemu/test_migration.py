# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration to its end, whichever end that is."""

from __future__ import annotations

import asyncio
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    DeadlineExceeded,
    GuestLost,
    MigrationFailed,
    QmpCommandError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _migration
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._deadline import Deadline
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fdset import hand_over, uri
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._migration import (
    Migration,
    report_of,
    wait_for_run_state,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import (
    Monitor,
    MonitorLost,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    model_guest,
    with_monitor,
)
from ansible_collections.vmfleet.suspend.tests.support.values import BOOKMARK

EVENTS_ON = {"capabilities": [{"capability": "events", "state": True}]}
NO_LIMIT = 0


@pytest.fixture
def guest(tmp_path):
    with model_guest(tmp_path) as guest:
        yield guest


@pytest.fixture
def quick(monkeypatch):
    """Shorter pauses, for runs in which nothing wakes the wait."""
    monkeypatch.setattr(_migration, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(_migration, "_CALM_SECONDS", 0.01)


async def migrate(monitor, guest, tmp_path, seconds=NO_LIMIT, events=True):
    """Save into a scratch file, as far as `Migration` does it."""
    if events:
        await monitor.execute("migrate-set-capabilities", EVENTS_ON)
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fdset_id = await hand_over(monitor, fd, BOOKMARK, write=True, direct=False)
    finally:
        os.close(fd)
    migration = Migration(monitor, guest.identity)
    return await migration.run("migrate", {"uri": uri(fdset_id, 4096)}, Deadline(seconds))


def run(guest, tmp_path, **options):
    return with_monitor(
        guest.qmp_socket, lambda monitor: migrate(monitor, guest, tmp_path, **options)
    )


# How it ends.


def test_it_ends_when_query_migrate_says_completed(guest, tmp_path):
    guest.qemu.progress = ["setup", "active", "device", "active", "device"]
    assert run(guest, tmp_path).total_seconds < 1
    assert guest.monitor.names.count("query-migrate") == 5
    assert guest.qemu.run_state == "finish-migrate"


def test_an_event_that_says_completed_is_not_believed(guest, tmp_path):
    """The event comes before the status: only the status is asked for."""
    guest.monitor.expect("query-migrate").emits("MIGRATION", {"status": "completed"}).returns(
        {"status": "active"}
    )
    run(guest, tmp_path)
    assert guest.monitor.names.count("query-migrate") > 2


def test_without_events_it_is_polled(guest, tmp_path, quick):
    run(guest, tmp_path, events=False)
    assert guest.qemu.run_state == "finish-migrate"


def test_a_refused_command_does_not_read_the_result_of_an_earlier_migration(guest, tmp_path):
    guest.qemu._status = "completed"
    guest.qemu.blocked_reasons = ["State blocked by non-migratable device 'ivshmem'"]
    with pytest.raises(QmpCommandError, match="ivshmem"):
        run(guest, tmp_path)
    assert "query-migrate" not in guest.monitor.names


@pytest.mark.parametrize(
    ("ends_as", "words"),
    [("failed", "No space left on device"), ("cancelled", "cancelled: no reason given")],
)
def test_a_migration_that_failed_is_told_in_qemus_words(guest, tmp_path, ends_as, words):
    guest.qemu.ends_as = ends_as
    with pytest.raises(MigrationFailed, match=words) as failed:
        run(guest, tmp_path)
    assert failed.value.facts["migration_status"] == ends_as
    assert "migrate_cancel" not in guest.monitor.names


# Ending it before its time.


def test_after_the_deadline_it_is_cancelled_and_the_guest_is_as_before(guest, tmp_path, quick):
    guest.qemu.ends_as = "never"
    with pytest.raises(DeadlineExceeded, match=r"timeout of 0.05 s.*busy with migrate"):
        run(guest, tmp_path, seconds=0.05)
    names = guest.monitor.names
    assert names.index("migrate-set-parameters") < names.index("migrate_cancel")
    assert guest.qemu.run_state == "running"


def test_cancelling_the_task_cancels_the_migration(guest, tmp_path, quick):
    guest.qemu.ends_as = "never"

    async def cancelled(monitor):
        work = asyncio.ensure_future(migrate(monitor, guest, tmp_path))
        while "migrate" not in guest.monitor.names:
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return await monitor.execute("query-migrate")

    assert with_monitor(guest.qmp_socket, cancelled) == {"status": "cancelled"}


def test_a_second_cancellation_does_not_leave_the_migration_running(guest, tmp_path, quick):
    guest.qemu.ends_as = "never"

    async def cancelled_twice(monitor):
        work = asyncio.ensure_future(migrate(monitor, guest, tmp_path))
        for name in ("migrate", "migrate-set-parameters"):
            while name not in guest.monitor.names:
                await asyncio.sleep(0.001)
            work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return await monitor.execute("query-migrate")

    assert with_monitor(guest.qmp_socket, cancelled_twice) == {"status": "cancelled"}


def test_an_answer_that_does_not_come_is_given_up_at_the_deadline(
    guest, tmp_path, quick, monkeypatch
):
    guest.monitor.expect("migrate").hangs()

    async def cancel(migration):
        """Nobody would answer it."""

    monkeypatch.setattr(Migration, "cancel", cancel)
    with pytest.raises(DeadlineExceeded, match="did not answer migrate"):
        run(guest, tmp_path, seconds=0.05)


def test_an_incoming_migration_is_never_cancelled(tmp_path, quick):
    """QEMU cannot cancel one: its process is ended instead, by whoever started it."""
    with model_guest(tmp_path, incoming=True, ends_as="never") as guest:

        async def load(monitor):
            fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT, 0o600)
            fdset_id = await hand_over(monitor, fd, BOOKMARK, write=False, direct=False)
            os.close(fd)
            migration = Migration(monitor, guest.identity)
            await migration.run("migrate-incoming", {"uri": uri(fdset_id, 0)}, Deadline(0.05))

        with pytest.raises(DeadlineExceeded, match="migrate-incoming"):
            with_monitor(guest.qmp_socket, load)
        assert "migrate_cancel" not in guest.monitor.names


@pytest.mark.parametrize("status", [None, "completed", "failed", "cancelled"])
def test_cancelling_what_does_not_run_is_harmless(guest, status):
    guest.qemu._status = status
    guest.qemu.run_state = "paused"
    with_monitor(guest.qmp_socket, lambda monitor: Migration(monitor, guest.identity).cancel())
    assert guest.commands == []


def test_a_migration_that_completes_while_it_is_cancelled_is_waited_out(guest, tmp_path, quick):
    """In finish-migrate QEMU takes neither a cancel nor a cont."""

    async def complete_then_cancel(monitor):
        await migrate(monitor, guest, tmp_path)
        guest.qemu._settling = 3
        await Migration(monitor, guest.identity).cancel()
        return guest.qemu.run_state

    assert with_monitor(guest.qmp_socket, complete_then_cancel) == "postmigrate"


def test_a_cancel_that_never_ends_is_told(guest, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(_migration, "_CANCEL_SECONDS", 0.05)
    guest.qemu.ends_as = "never"
    guest.qemu._status = "active"
    guest.monitor.expect("migrate_cancel").returns({})
    with pytest.raises(MigrationFailed, match="did not finish cancelling"):
        with_monitor(guest.qmp_socket, lambda monitor: Migration(monitor, guest.identity).cancel())


# Link and process.


def test_a_broken_link_is_mended_and_the_migration_goes_on(guest, tmp_path):
    guest.monitor.expect("query-migrate").disconnects()
    run(guest, tmp_path)
    assert guest.qemu.run_state == "finish-migrate"


def test_a_link_that_breaks_between_two_polls_is_mended(guest, tmp_path):
    guest.qemu.progress = ["setup", "active", "active", "active"]
    for _break in range(2):
        guest.monitor.expect("query-migrate").returns({"status": "active"}).disconnects()
    run(guest, tmp_path)
    assert guest.monitor.names.count("migrate") == 1


def test_a_qemu_that_dies_takes_its_guest_with_it(guest, tmp_path):
    process = guest.identity
    guest.qemu.writer = lambda fd, offset: guest.qemu.end_process()
    guest.monitor.expect("query-migrate").disconnects()
    with pytest.raises(GuestLost, match=f"process {process.pid} ended during migrate") as lost:
        run(guest, tmp_path)
    assert lost.value.facts == {"pid": process.pid}


def test_a_qemu_that_dies_while_it_is_asked_is_noticed_though_the_link_holds(
    guest, tmp_path, quick
):
    """Another process may keep the socket open, such as a child that inherited it."""
    guest.qemu.writer = lambda fd, offset: guest.qemu.end_process()
    guest.monitor.expect("query-migrate").hangs()
    with pytest.raises(GuestLost):
        run(guest, tmp_path)


def test_without_a_process_to_look_at_a_broken_link_is_only_that(guest):
    guest.monitor.expect("migrate").disconnects()

    async def unseen(monitor: Monitor):
        await Migration(monitor, None).run("migrate", {"uri": "file:x"}, Deadline(0))

    with pytest.raises(MonitorLost, match="during migrate"):
        with_monitor(guest.qmp_socket, unseen)


# After completed.


def test_finish_migrate_is_waited_out(guest, tmp_path):
    async def settle(monitor):
        await migrate(monitor, guest, tmp_path)
        guest.qemu._settling = 4
        return await wait_for_run_state(monitor, ("postmigrate",))

    assert with_monitor(guest.qmp_socket, settle) == "postmigrate"


def test_a_state_that_is_never_reached_is_told_with_the_one_that_was(guest):
    with pytest.raises(MigrationFailed, match=r"stayed in run state running for 0\.03 s") as stayed:
        with_monitor(
            guest.qmp_socket,
            lambda monitor: wait_for_run_state(monitor, ("postmigrate",), 0.03),
        )
    assert stayed.value.facts == {"run_state": "running"}


# The report.


def test_the_report_reads_qemus_counts():
    ram = {"transferred": 8192, "total": 65536, "normal": 2, "duplicate": 14, "remaining": 0}
    report = report_of({"status": "completed", "ram": ram}, 2.00049)
    assert (report.transferred_bytes, report.total_bytes) == (8192, 65536)
    assert (report.normal_pages, report.zero_pages) == (2, 14)
    assert (report.total_seconds, report.throughput_bytes_per_second) == (2.0, 4096)


def test_a_report_without_counts_is_all_zeros():
    report = report_of({"status": "completed"}, 0)
    assert (report.transferred_bytes, report.throughput_bytes_per_second) == (0, 0)
