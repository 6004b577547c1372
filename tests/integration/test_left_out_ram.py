# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's counts and the image: equal when all is well, proof when RAM was left out."""

from __future__ import annotations

import os
import time

import pytest
from qemu.qmp import ExecuteError

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._migration import (
    Migration,
    report_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._counts import missing_pages
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save
from ansible_collections.vmfleet.suspend.tests.support.images import libvirt_prefix

VIRTIO_MEM = (
    *("-m", "64,maxmem=1G"),
    *("-object", "memory-backend-ram,id=more,size=128M"),
    *("-device", "virtio-mem-pci,memdev=more,requested-size=0"),
)
MULTIFD = ("mapped-ram", "multifd")


@pytest.fixture
def guest(tiny_guest):
    """Makes a guest that has filled its memory."""

    def make(*arguments, **options):
        guest = tiny_guest(*arguments, **options)
        guest.start()
        guest.wait_ready()
        return guest

    return make


def walked(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return verify_structure(fd, str(path))
    finally:
        os.close(fd)


def counted(guest):
    """The counts of the last migration, which QEMU keeps until the next one."""
    return report_of(guest.execute("query-migrate"), 1.0)


def migrate_by_hand(guest, path, capabilities):
    """Let QEMU write with these capabilities on, whoever switched them on."""
    prefix = libvirt_prefix()
    path.write_bytes(prefix)
    states = [{"capability": name, "state": True} for name in capabilities]
    guest.execute("migrate-set-capabilities", {"capabilities": states})
    guest.execute("migrate", {"uri": f"file:{path},offset={len(prefix)}"})
    deadline = time.monotonic() + 30
    while (reply := guest.execute("query-migrate"))["status"] not in ("completed", "failed"):
        assert time.monotonic() < deadline, reply
        time.sleep(0.02)
    assert reply["status"] == "completed", reply
    return walked(path), counted(guest)


@pytest.mark.parametrize("was_paused", [False, True])
@pytest.mark.parametrize(
    ("memory_mib", "options"),
    [
        (64, {"parallel_channels": 1}),
        (64, {"parallel_channels": 4, "bypass_cache": True}),
        pytest.param(64, {"parallel_channels": 1, "bypass_cache": True}, marks=pytest.mark.full),
        pytest.param(1024, {"parallel_channels": 4}, marks=pytest.mark.full),
        pytest.param(1024, {"parallel_channels": 1, "bypass_cache": True}, marks=pytest.mark.full),
    ],
)
def test_qemu_counts_the_pages_that_are_in_the_image_each_time(
    guest, store, memory_mib, options, was_paused
):
    source = guest(memory_mib)
    if was_paused:
        source.execute("stop")
    for number, guest_state in enumerate(["running", "paused"]):
        path = store / f"{number}.save"
        do_save(source.qmp_socket, path, guest_state=guest_state, **options)
        structure, report = walked(path), counted(source)
        assert structure.present_pages == report.normal_pages > 0
        assert structure.zero_pages == report.zero_pages > 0
        assert structure.ram_bytes == report.total_bytes
        assert missing_pages(structure, report) is None


def test_unplugged_memory_of_virtio_mem_is_passed_over_and_is_no_loss(guest, store):
    source = guest(extra=VIRTIO_MEM)
    do_save(source.qmp_socket, store / "guest.save", guest_state="paused")
    structure, report = walked(store / "guest.save"), counted(source)
    assert structure.present_pages == report.normal_pages
    assert structure.zero_pages > report.zero_pages
    assert missing_pages(structure, report) is None


def test_a_page_that_was_written_twice_is_no_loss(guest, store):
    structure, report = migrate_by_hand(guest(), store / "guest.save", MULTIFD)
    assert structure.present_pages <= report.normal_pages
    assert missing_pages(structure, report) is None


def test_background_snapshot_writes_no_bitmap_and_the_counts_prove_it(guest, store):
    source = guest()
    source.execute("stop")
    capabilities = ("mapped-ram", "background-snapshot")
    try:
        structure, report = migrate_by_hand(source, store / "guest.save", capabilities)
    except ExecuteError as exc:
        if "not supported by host kernel" not in str(exc):
            raise
        pytest.skip(f"{exc}: it needs userfaultfd, which some kernels leave to root")
    assert structure.present_pages == 0
    reason = missing_pages(structure, report)
    assert reason is not None
    assert f"QEMU counted {report.normal_pages} pages with content" in reason


def test_x_ignore_shared_leaves_a_whole_ram_block_out_and_the_counts_prove_it(
    guest, store, tmp_path
):
    backend = f"memory-backend-file,id=ram,size=64M,share=on,mem-path={tmp_path / 'ram'}"
    source = guest(machine="pc,memory-backend=ram", extra=("-object", backend))
    source.execute("stop")
    structure, report = migrate_by_hand(source, store / "guest.save", ("x-ignore-shared",))
    assert structure.ram_bytes > 64 << 20
    reason = missing_pages(structure, report)
    assert reason is not None
    assert f"wrote only those of {report.total_bytes}" in reason


def test_ram_that_somebody_made_qemu_leave_out_meanwhile_is_noticed_and_the_save_undone(
    guest, store, tmp_path, monkeypatch
):
    backend = f"memory-backend-file,id=ram,size=64M,share=on,mem-path={tmp_path / 'ram'}"
    source = guest(machine="pc,memory-backend=ram", extra=("-object", backend))
    run = Migration.run

    async def switch_on_then_run(self, *arguments):
        states = [{"capability": "x-ignore-shared", "state": True}]
        await self._monitor.execute("migrate-set-capabilities", {"capabilities": states})
        return await run(self, *arguments)

    monkeypatch.setattr(Migration, "run", switch_on_then_run)
    with pytest.raises(SaveFailed, match="RAM is missing"):
        do_save(source.qmp_socket, store / "guest.save", image_format="raw")
    assert list(store.iterdir()) == []
    source.wait_passes(2)
    assert source.mismatches == []
