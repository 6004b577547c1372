# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirtd of the tests' own runs a guest that proves its memory."""

from __future__ import annotations

from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost


def test_a_domain_keeps_its_memory_through_virsh_save_and_restore(libvirt_host, domain, store):
    path = store / "domain.save"
    sparse = ("--image-format", "sparse", "--parallel-channels", 2)
    libvirt_host.virsh("save", domain.name, path, *sparse)
    assert not domain.alive()
    libvirt_host.virsh("restore", path, "--parallel-channels", 2)
    domain.wait_passes(2)
    assert domain.mismatches == []


def test_two_of_them_know_nothing_of_each_other(libvirt_host, domain):
    other = LibvirtHost()
    try:
        other.start()
        assert domain.name in libvirt_host.virsh("list", "--name")
        assert other.virsh("list", "--all", "--name").split() == []
    finally:
        other.close()
    assert domain.alive()
