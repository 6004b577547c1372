# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is interrupted at any moment: the guest runs, or its image is ready. Never neither."""

from __future__ import annotations

import asyncio
import os
import random
import threading

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused, VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._guest_lock import (
    GuestLocked,
    guest_lock,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _planning
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _run as save_run
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._plan import plan_save
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._steps import write_guest
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    image_info,
    leftovers,
    look,
)

ROUNDS = 8


@pytest.fixture
def guest(tiny_guest):
    guest = tiny_guest(memory_mib=128, pattern_mib=64, zero_mib=16)
    guest.start()
    guest.wait_passes(1)
    return guest


async def save_and_cancel(request, when):
    """Cancel a save as a signal does; ``when`` is awaited first, beside it."""
    saving = asyncio.ensure_future(save_run.save(request, check_mode=False))
    await asyncio.wait([saving, asyncio.ensure_future(when)], return_when="FIRST_COMPLETED")
    saving.cancel()
    return await asyncio.gather(saving, return_exceptions=True)


def a_request(guest, path, **options):
    return SaveRequest(
        path=str(path), qmp_socket=guest.qmp_socket, qemu_conf="/nonexistent", **options
    )


@pytest.mark.parametrize("guest_state", ["stopped", "running"])
def test_an_interruption_at_any_moment_leaves_a_running_guest_or_a_ready_image(
    guest, store, guest_state
):
    path = store / "guest.save"
    settings = look(guest.qmp_socket).offer
    request = a_request(guest, path, guest_state=guest_state, overwrite=True)
    moments = random.Random(20261122)
    for _round in range(ROUNDS):
        delay_seconds = moments.uniform(0.01, 0.4)
        asyncio.run(save_and_cancel(request, asyncio.sleep(delay_seconds)))
        if guest.alive():
            assert guest.status() == "running", f"after {delay_seconds} s"
            assert look(guest.qmp_socket).offer == settings
        else:
            assert image_info(path)["state"] == "ready", f"after {delay_seconds} s"
            guest.start(incoming=True)
            do_restore(guest.qmp_socket, path)
        assert guest.execute("query-fdsets") == []
        assert leftovers(store) == []
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_cancel_at_full_speed_does_not_cost_the_guest(guest, store, monkeypatch):
    path = store / "guest.save"
    request = a_request(guest, path, parallel_channels=4, overwrite=True)

    for milliseconds in (0, 1, 2, 5, 10, 15, 20, 30, 40):
        began = asyncio.Event()

        async def begin_and_write(session, began=began):
            began.set()
            return await write_guest(session)

        async def soon_after_it_began(began=began, milliseconds=milliseconds):
            await began.wait()
            await asyncio.sleep(milliseconds / 1000)

        monkeypatch.setattr(save_run, "write_guest", begin_and_write)
        asyncio.run(save_and_cancel(request, soon_after_it_began()))
        if not guest.alive():
            assert image_info(path)["state"] == "ready", f"cancelled after {milliseconds} ms"
            guest.start(incoming=True)
            do_restore(guest.qmp_socket, path)
        assert guest.status() == "running", f"cancelled after {milliseconds} ms"
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_second_run_through_another_monitor_is_refused_and_names_the_first(tiny_guest, store):
    guest = tiny_guest()
    second = guest.directory / "second"
    guest.extra = ("-qmp", f"unix:{second},server=on,wait=off")
    guest.start()
    guest.wait_passes(1)
    process = look(guest.qmp_socket).process
    with guest_lock(process, guest.qmp_socket), pytest.raises(GuestLocked) as refused:
        do_save(second, store / "guest.save")
    assert str(os.getpid()) in refused.value.message
    assert guest.status() == "running"
    assert list(store.iterdir()) == []
    assert do_save(second, store / "guest.save")["changed"] is True


def test_an_image_that_appears_while_the_save_is_planned_is_not_replaced(
    guest, tiny_guest, store, monkeypatch
):
    other = tiny_guest()
    other.start()
    path = store / "guest.save"

    def plan_while_another_guest_is_saved_there(*arguments, **facts):
        monkeypatch.setattr(_planning, "plan_save", plan_save)
        saver = threading.Thread(target=do_save, args=(other.qmp_socket, path))
        saver.start()
        saver.join()
        return plan_save(*arguments, **facts)

    monkeypatch.setattr(_planning, "plan_save", plan_while_another_guest_is_saved_there)
    with pytest.raises((Refused, VmfleetError), match="changed while"):
        do_save(guest.qmp_socket, path)
    assert image_info(path)["uuid"] == other.uuid
    assert guest.status() == "running"
