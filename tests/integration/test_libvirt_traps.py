# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What costs guests with libvirt and QEMU, and does not with the modules (T1 to T10).

T1 and T2, direct-io that stays on, and T9, descriptors that stay open, are in test_domains.py and
test_managed_saves.py; T4, RAM that is not fresh, in test_lossless.py over QMP, and as decisions in
unit/save/test_domain_plan.py and unit/restore/test_domain_description.py. T7 has no guard: nothing
in an image tells a flipped byte of a page from the guest's own, and images are trusted to their
filesystem; `verify: content` compares before the guest is let go, which libvirt does not wait for.
"""

from __future__ import annotations

import os
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt import _managed
from ansible_collections.vmfleet.suspend.tests.support.drive import image_info
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_as_managed,
    restore_by_libvirt,
    save_as_managed,
    save_by_libvirt,
)
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest

from .test_domains import is_well, state_of


def test_libvirt_is_always_told_a_file_and_an_absolute_one(domain, store, monkeypatch):
    """T3: without one libvirt never lets go of the domain; T8: a relative one is the daemon's."""
    told = []
    save, restore = libvirt.virDomain.saveParams, libvirt.virConnect.restoreParams

    def save_params(self, parameters, flags):
        told.append(parameters["file"])
        return save(self, parameters, flags)

    def restore_params(self, parameters, flags):
        told.append(parameters["file"])
        return restore(self, parameters, flags)

    monkeypatch.setattr(libvirt.virDomain, "saveParams", save_params)
    monkeypatch.setattr(libvirt.virConnect, "restoreParams", restore_params)
    monkeypatch.chdir(store)
    save_by_libvirt(domain, Path("domain.save"), parallel_channels=1)
    restore_by_libvirt(domain, Path("domain.save"), parallel_channels=2)
    assert told == [str(store / ".domain.save.partial"), str(store / "domain.save")]
    assert is_well(domain)


def test_a_managed_save_is_never_asked_for_without_a_file(domain, libvirt_host, monkeypatch):
    """T3 again: that is what saveParams without a file was meant for."""
    directory = libvirt_host.directory / "lib" / "qemu" / "save"
    monkeypatch.setattr(_managed, "SYSTEM_DIRECTORY", str(directory))
    monkeypatch.delattr(libvirt.virDomain, "saveParams")
    save_as_managed(domain)
    restore_as_managed(domain)
    assert is_well(domain)


def test_an_image_is_flushed_before_it_gets_its_name(domain, store, monkeypatch):
    """T6: neither libvirt nor QEMU flushes a sparse image."""
    flushed, fsync = [], os.fsync

    def noted(fd):
        flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    save_by_libvirt(domain, store / "domain.save")
    assert str(store / ".domain.save.partial") in flushed
    assert flushed[-1] == str(store)


def edited(path: Path, before: int, after: int) -> None:
    """Another RAM size in the description, as an editor that checks nothing would write it."""
    image = bytearray(path.read_bytes())
    assert len(str(before)) == len(str(after))
    end = image.index(b"</currentMemory>")
    head = bytes(image[:end]).replace(f">{before}".encode(), f">{after}".encode())
    image[:end] = head
    path.write_bytes(image)


@pytest.mark.full
def test_a_description_with_more_ram_than_was_saved_is_refused(domain, store):
    """T5: virsh loads it into a machine of another size and says nothing."""
    path = store / "domain.save"
    save_by_libvirt(domain, path)
    edited(path, 65536, 98304)
    with pytest.raises(Refused, match=r"96 MiB of RAM, the guest was saved with 64"):
        restore_by_libvirt(domain, path)
    assert (state_of(domain), image_info(path)["state"]) == ("shut off", "ready")
    domain.host.virsh("restore", path, "--paused")
    assert "98304 KiB" in domain.host.virsh("dominfo", domain.name)
    domain.host.virsh("destroy", domain.name)
    edited(path, 98304, 65536)
    restore_by_libvirt(domain, path)
    assert is_well(domain)


@pytest.fixture
def snapshots_as_sparse(libvirt_host):
    conf = libvirt_host.directory / "etc" / "qemu.conf"
    before = conf.read_text("utf-8")
    conf.write_text(before + 'snapshot_image_format = "sparse"\n', "utf-8")
    libvirt_host.restart(fresh=False)
    yield
    conf.write_text(before, "utf-8")
    libvirt_host.restart(fresh=False)


def snapshot(domain, path):
    """The memory of a running domain, as an external snapshot keeps it."""
    domain.host.virsh(
        *("snapshot-create-as", domain.name, "one", "--memspec", f"file={path},snapshot=external"),
        *("--diskspec", "vda,snapshot=no", "--no-metadata"),
    )


def test_the_memory_of_an_external_snapshot_is_read(domain, store):
    path = store / "memory.save"
    snapshot(domain, path)
    info = image_info(path)
    assert (info["image_format"], info["layout"]) == ("raw", "sequential")
    assert (info["uuid"], info["problems"]) == (domain.uuid, [])


def test_the_header_of_a_snapshots_memory_is_not_believed(domain, store, snapshots_as_sparse):
    """T10: it says sparse, and the stream is an ordinary one."""
    path = store / "memory.save"
    snapshot(domain, path)
    info = image_info(path)
    assert (info["image_format"], info["layout"]) == ("sparse", "sequential")
    assert (info["uuid"], info["problems"]) == (domain.uuid, [])


class Sleeper(LibvirtTinyGuest):
    """A guest that puts itself to sleep as soon as it has booted."""

    # mov dx, 0x604; mov ax, SLP_TYP 1 | SLP_EN; out dx, ax; hlt; jmp to the hlt
    CODE = bytes.fromhex("ba0406 b80024 ef f4 ebfd")

    def domain_xml(self) -> str:
        sector = self.CODE.ljust(510, b"\0") + b"\x55\xaa"
        self.disk_path.write_bytes(sector.ljust(1 << 20, b"\0"))
        power = "<pm><suspend-to-mem enabled='yes'/></pm>"
        return super().domain_xml().replace("<devices>", f"{power}<devices>")


def test_a_guest_that_sleeps_is_refused_and_sleeps_on(libvirt_host, tmp_path, store):
    sleeper = Sleeper(tmp_path, libvirt_host, name="sleeper")
    sleeper.start()
    try:
        sleeper._wait(lambda: state_of(sleeper) == "pmsuspended", 30, "fall asleep")
        with pytest.raises(Refused, match=r"put itself to sleep.*virsh dompmwakeup") as refused:
            save_by_libvirt(sleeper, store / "sleeper.save")
        assert refused.value.facts["guest"]["state"] == "pmsuspended"
        assert (state_of(sleeper), os.listdir(store)) == ("pmsuspended", [])
    finally:
        sleeper.close()
        libvirt_host.virsh("undefine", "sleeper")
