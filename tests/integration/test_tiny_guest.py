# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny guest on a real QEMU: it boots, it sleeps, and it notices what it must notice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.playbooks.files.tiny_guest import (
    MIB_BYTES,
    PAGE_BYTES,
    expected_page,
)
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

MakeGuest = Callable[..., TinyGuest]
PATTERN_START, ZERO_START, END = 2 * MIB_BYTES, 18 * MIB_BYTES, 34 * MIB_BYTES
STREAM_OFFSET_BYTES = 1 * MIB_BYTES


@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize(
    ("memory_mib", "pattern_mib", "zero_mib"),
    [(64, 16, 16), (64, 1, 41), (2048, 16, 16)],
    ids=["small", "zeros up to the firmware's memory", "2 GiB"],
)
def test_the_guest_boots_and_counts_its_passes(
    tiny_guest: MakeGuest, machine: str, memory_mib: int, pattern_mib: int, zero_mib: int
) -> None:
    guest = tiny_guest(memory_mib, pattern_mib, zero_mib, machine).start()
    ready = guest.wait_ready()
    assert (ready.pattern_start_bytes, ready.pattern_pages, ready.zero_pages) == (
        PATTERN_START,
        pattern_mib * MIB_BYTES // PAGE_BYTES,
        zero_mib * MIB_BYTES // PAGE_BYTES,
    )
    guest.wait_passes(3)
    passes = guest.passes
    assert [report.number for report in passes] == list(range(1, len(passes) + 1))
    assert {report.pages for report in passes} == {guest.regions.pages}
    assert guest.mismatches == []


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_power_button_switches_the_guest_off(tiny_guest: MakeGuest, machine: str) -> None:
    guest = tiny_guest(machine=machine).start()
    guest.wait_passes(1)
    guest.execute("system_powerdown")
    guest.wait_gone()


@pytest.mark.full
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_guest_runs_under_kvm(tiny_guest: MakeGuest, machine: str) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened here; the guest is proved under tcg")
    # Small and with much patience: a KVM inside a virtual machine may interpret the guest.
    guest = tiny_guest(accelerator="kvm", machine=machine, pattern_mib=1, zero_mib=0).start()
    guest.wait_ready(90)
    guest.wait_passes(1, 90)
    assert guest.mismatches == []


@pytest.mark.parametrize(
    "address",
    [PATTERN_START, ZERO_START - 1, ZERO_START, END - 1],
    ids=["first of pattern", "last of pattern", "first of zeros", "last of zeros"],
)
def test_one_changed_byte_is_reported_in_every_pass_until_it_is_right_again(
    tiny_guest: MakeGuest, address: int
) -> None:
    guest = tiny_guest().start()
    guest.wait_passes(1)
    [right] = guest.read_memory(address, 1)
    guest.write_memory(address, bytes([right ^ 0x80]))
    dword_address = address - address % 4
    for report in guest.wait_passes(3)[1:]:
        assert (report.wrong_dwords, report.first_wrong_address) == (1, dword_address)
    guest.write_memory(address, bytes([right]))
    for report in guest.wait_passes(3)[1:]:
        assert (report.wrong_dwords, report.first_wrong_address) == (0, None)


def test_several_wrong_dwords_are_counted_and_the_lowest_is_named(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest().start()
    guest.wait_passes(1)
    guest.write_memory(ZERO_START - PAGE_BYTES, bytes(PAGE_BYTES))  # a page of the pattern lost
    guest.write_memory(ZERO_START + PAGE_BYTES, b"\1")
    report = guest.wait_passes(2)[-1]
    assert report.wrong_dwords == PAGE_BYTES // 4 + 1
    assert report.first_wrong_address == ZERO_START - PAGE_BYTES


def test_memory_holds_what_the_builder_says(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest().start()
    guest.wait_ready()
    for address in (PATTERN_START, PATTERN_START + 5 * PAGE_BYTES, ZERO_START - PAGE_BYTES):
        assert guest.read_memory(address, PAGE_BYTES) == expected_page(address)
    for address in (ZERO_START, END - PAGE_BYTES):
        assert guest.read_memory(address, PAGE_BYTES) == bytes(PAGE_BYTES)


@pytest.mark.full
def test_eight_guests_would_leave_two_cores_some_rest(tiny_guest: MakeGuest) -> None:
    guest = tiny_guest(memory_mib=256, pattern_mib=64, zero_mib=64).start()
    guest.wait_passes(1)
    before, started = guest.cpu_seconds(), time.monotonic()
    guest.wait_passes(5)
    share = (guest.cpu_seconds() - before) / (time.monotonic() - started)
    assert share < 0.4  # by design a quarter of one core, and a little for QEMU itself


def test_a_mapped_ram_image_brings_the_guest_back_in_the_middle_of_its_work(
    tiny_guest: MakeGuest, tmp_path: Path
) -> None:
    guest = tiny_guest().start()
    guest.wait_passes(2)
    save(guest, tmp_path / "image")
    before = len(guest.passes)
    load(guest, tmp_path / "image")
    guest.wait_passes(2)
    passes = guest.passes
    assert [report.number for report in passes] == list(range(1, len(passes) + 1))
    assert len(passes) >= before + 2
    assert guest.mismatches == []


def test_one_byte_changed_in_the_image_is_reported_by_the_restored_guest(
    tiny_guest: MakeGuest, tmp_path: Path
) -> None:
    guest = tiny_guest().start()
    guest.wait_passes(1)
    save(guest, tmp_path / "image")
    address = PATTERN_START + 1000 * PAGE_BYTES
    image = bytearray((tmp_path / "image").read_bytes())
    offset = image.index(expected_page(address)) + 1234
    image[offset] ^= 1
    (tmp_path / "image").write_bytes(image)
    load(guest, tmp_path / "image")
    report = guest.wait_passes(2)[-1]
    assert (report.wrong_dwords, report.first_wrong_address) == (1, address + 1232)


def save(guest: TinyGuest, image: Path) -> None:
    """Save with QEMU's own commands, past this project's code, and end QEMU."""
    use_mapped_ram(guest)
    guest.execute("stop")
    guest.execute("migrate", {"uri": f"file:{image},offset={STREAM_OFFSET_BYTES}"})
    wait_completed(guest)
    guest.quit()


def load(guest: TinyGuest, image: Path) -> None:
    """Load such an image into a new QEMU and run it."""
    guest.start(incoming=True)
    use_mapped_ram(guest)
    guest.execute("migrate-incoming", {"uri": f"file:{image},offset={STREAM_OFFSET_BYTES}"})
    wait_completed(guest)
    guest.execute("cont")


def use_mapped_ram(guest: TinyGuest) -> None:
    guest.execute("migrate-set-parameters", {"max-bandwidth": 0, "multifd-channels": 2})
    names = ("mapped-ram", "multifd")
    capabilities = [{"capability": name, "state": True} for name in names]
    guest.execute("migrate-set-capabilities", {"capabilities": capabilities})


def wait_completed(guest: TinyGuest) -> None:
    deadline = time.monotonic() + 60
    while (state := guest.execute("query-migrate").get("status")) != "completed":
        assert state in (None, "setup", "active", "device"), guest.execute("query-migrate")
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
