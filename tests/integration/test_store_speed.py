# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save of a large guest goes by what its store was measured to do best."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._measured import Figure, Figures
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _store_figures
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save, goes_on
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host
from ansible_collections.vmfleet.suspend.tests.support.slow_store import SlowStore, why_not

LARGE_MIB = 1100


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Where figures are kept."""
    monkeypatch.setattr(_store_figures, "DIRECTORY", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def slow_store(tmp_path):
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "slow").mkdir()
    store = SlowStore(tmp_path / "slow")
    yield store.path
    store.close()


@pytest.fixture
def large(tiny_guest):
    guest = tiny_guest(LARGE_MIB, 16, 4, name="large").start()
    guest.wait_passes(1)
    return guest


def test_where_o_direct_is_slow_a_large_guest_is_saved_through_the_page_cache(
    slow_store, large, kept
):
    path = slow_store / "large.save"
    foreseen = do_save(large.qmp_socket, path, check_mode=True)
    assert foreseen["plan"]["reasons"]["bypass_cache"] == "left off: not measured on this store"
    assert not kept.exists()

    saved = do_save(large.qmp_socket, path)
    assert saved["negotiated"]["bypass_cache"] is False
    why = saved["plan"]["reasons"]["bypass_cache"]
    assert why.startswith("measured on this store: O_DIRECT ") and ", buffered " in why
    assert [p.name for p in slow_store.iterdir()] == ["large.save"]
    do_restore(large.qmp_socket, path)
    assert goes_on(large)


def test_what_is_kept_holds_for_small_guests_too_and_check_mode_goes_by_it(
    slow_store, tiny_guest, kept
):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = slow_store / "small.save"
    assert do_save(guest.qmp_socket, path, check_mode=True)["negotiated"]["bypass_cache"] is False
    version = guest.execute("query-version")["qemu"]
    qemu = f"{version['major']}.{version['minor']}.{version['micro']}"
    found = Figures(time.time(), (Figure(True, 3, 9e6), Figure(True, 1, 2e6)), ())
    _store_figures.keep(_store_figures.identity(str(slow_store), qemu), found)

    for check_mode in (True, False):
        saved = do_save(guest.qmp_socket, path, check_mode=check_mode)
        assert saved["negotiated"]["bypass_cache"] is True
        assert saved["negotiated"]["parallel_channels"] == 3
        assert saved["plan"]["reasons"]["parallel_channels"].startswith("measured on this store")


def test_a_host_foretells_by_its_store_before_anything_was_saved_there(tiny_guest, tmp_path):
    guests = [tiny_guest(LARGE_MIB // 2, name=name).start() for name in ("web", "db")]
    host = Host(tmp_path, qmp_sockets=[guest.qmp_socket for guest in guests])
    foreseen = host.suspend(check_mode=True)["plan"]
    assert foreseen["guests"][0]["predicted_seconds"] is None
    suspended = host.suspend()["plan"]
    assert suspended["guests"][0]["predicted_seconds"] > 0
    assert suspended["stores"][0]["measured_bytes_per_second"] > 0
    host.resume()
    assert all(goes_on(guest) for guest in guests)


def test_a_measurement_that_is_killed_leaves_nothing_in_the_store(store):
    code = (
        "import os, sys, time; from ansible_collections.vmfleet.suspend.plugins.module_utils."
        "_saveimage import _probe; os.fsync = lambda _fd: time.sleep(60); "
        "_probe.measure(sys.argv[1], 2)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(_store_figures.__file__).parents[6])}
    with subprocess.Popen([sys.executable, "-c", code, store], env=environment) as probe:
        while not _holds_a_file_in(probe.pid, store):
            assert probe.poll() is None
        probe.send_signal(signal.SIGKILL)
    assert list(store.iterdir()) == []


def _holds_a_file_in(pid, store):
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(f"{store}/"):
            return True
    return False
