# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirtd of the tests' own runs a guest that proves its memory."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import (
    LibvirtHost,
    libvirt_missing,
)

MISSING = libvirt_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@pytest.fixture
def host():
    host = LibvirtHost()
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture
def domain(host, tmp_path):
    guest = LibvirtTinyGuest(tmp_path, host)
    yield guest.start()
    guest.close()


def test_a_domain_keeps_its_memory_through_virsh_save_and_restore(host, domain, store):
    domain.wait_passes(1)
    path = store / "domain.save"
    host.virsh("save", domain.name, path, "--image-format", "sparse", "--parallel-channels", 2)
    assert not domain.alive()
    host.virsh("restore", path, "--parallel-channels", 2)
    domain.wait_passes(2)
    assert domain.mismatches == []


def test_two_of_them_know_nothing_of_each_other(host, domain):
    other = LibvirtHost()
    try:
        other.start()
        assert domain.name in host.virsh("list", "--name")
        assert other.virsh("list", "--all", "--name").split() == []
    finally:
        other.close()
    assert domain.alive()
