# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux goes into an image and comes back, and 200 MiB of random data keep their checksum.

The matrix: image kind x bypass_cache. `make test` runs representative cells; `make test-full` all
of them. One Linux lives through all the cells, one save and one restore after another.
"""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import (
    replaceable,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_restore,
    do_save,
    image_info,
    leftovers,
)
from ansible_collections.vmfleet.suspend.tests.support.kinds import KINDS, needs_program
from ansible_collections.vmfleet.suspend.tests.support.linux_guest import RANDOM_MIB, LinuxGuest

REPRESENTATIVE = {("v3", True), ("v2-sparse", False)}


@pytest.fixture(scope="module")
def booted():
    """The guests that were booted for these tests; all end with the module."""
    guests: list[LinuxGuest] = []
    yield guests
    for guest in guests:
        guest.close()


@pytest.fixture
def linux_guest(booted, linux_files, tmp_path_factory):
    """A running Linux with its data: the one that is there, another where a test lost it."""
    if not booted or not is_well(booted[-1]):
        for lost in booted:
            lost.kill()
        booted.append(LinuxGuest(tmp_path_factory.mktemp("linux"), linux_files).start())
    booted[-1].wait_filled()
    return booted[-1]


def is_well(guest):
    return guest.alive() and guest.status() == "running" and len(guest.checksums) == 1


@pytest.fixture
def path(store):
    """Where an image goes; removed after the test, for pytest keeps its directories."""
    path = store / "linux.save"
    yield path
    with replaceable(str(path)):
        path.unlink(missing_ok=True)


def cells():
    found = []
    for cell in itertools.product(KINDS, (False, True)):
        marks = () if cell in REPRESENTATIVE else (pytest.mark.full,)
        found.append(pytest.param(*cell, marks=marks, id="-".join(str(part) for part in cell)))
    return found


@pytest.mark.parametrize(("kind", "bypass_cache"), cells())
def test_a_linux_comes_back_with_the_same_data_and_goes_on(linux_guest, path, kind, bypass_cache):
    needs_program(KINDS[kind].get("image_format", "raw"))
    guest = linux_guest
    checksum = guest.wait_filled()

    do_save(guest.qmp_socket, path, **KINDS[kind], bypass_cache=bypass_cache)

    assert not guest.alive()
    assert leftovers(path.parent) == []
    assert image_info(path)["problems"] == []
    assert path.stat().st_size > RANDOM_MIB << 20  # no program makes random data shorter
    guest.start(incoming=True)
    restored = do_restore(guest.qmp_socket, path, bypass_cache=bypass_cache)
    assert restored["guest"]["state"] == "running"
    assert guest.wait_new_pass() == checksum
    assert guest.checksums == {checksum}
    assert guest.complaints == []


def test_a_restored_linux_counts_on_from_where_it_was_and_its_uptime_never_goes_back(
    linux_guest, path
):
    guest = linux_guest
    before = guest.wait_ticks(1)
    do_save(guest.qmp_socket, path)
    guest.start(incoming=True)
    do_restore(guest.qmp_socket, path)
    ticks = guest.wait_ticks(3)
    assert len(ticks) >= len(before) + 3
    assert [tick.number for tick in ticks] == list(range(1, len(ticks) + 1))
    uptimes = [tick.uptime_seconds for tick in ticks]
    assert uptimes == sorted(uptimes)


@pytest.mark.parametrize("kind", ["v3", pytest.param("v2-sparse", marks=pytest.mark.full)])
def test_a_linux_runs_from_its_image_and_can_be_saved_from_there(linux_guest, path, kind):
    guest = linux_guest
    checksum = guest.wait_filled()
    for load in ("lazy", "lazy", "eager"):
        do_save(guest.qmp_socket, path, **KINDS[kind])
        result = bring_back(path, load=load)
        assert result["plan"]["load"] == load
        assert guest.wait_new_pass() == checksum
    assert guest.checksums == {checksum}
    assert guest.complaints == []


@pytest.mark.full
def test_a_linux_with_one_wrong_bit_in_its_data_says_so(linux_guest):
    guest = linux_guest
    checksum = guest.wait_filled()
    address = 128 << 20  # the kernel lies below, what it allocated first above
    original = guest.read_memory(address, 1)
    guest.write_memory(address, bytes([original[0] ^ 1]))
    assert guest.wait_new_pass() != checksum
