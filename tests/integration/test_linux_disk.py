# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux with a qcow2 disk goes into an image, and disk and memory still fit when it comes back.

At the save the disk is in use: the journal has yet to be put in its place, and lines that the guest
has written lie in its memory only. One boot and one save serve both tests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import bring_back, do_save
from ansible_collections.vmfleet.suspend.tests.support.ext4_disk import (
    FileSystem,
    needs_disk_programs,
)
from ansible_collections.vmfleet.suspend.tests.support.linux_disk import (
    LinuxDiskGuest,
    numbered_lines,
)


@dataclass(frozen=True)
class Saved:
    """A guest in an image, none of its processes left, and its disk as it was then."""

    guest: LinuxDiskGuest
    image: Path
    memory_checksum: str
    file_checksum: str
    reported_lines: int
    disk_then: FileSystem


@pytest.fixture(scope="module")
def saved(linux_files, tmp_path_factory):
    needs_disk_programs()
    directory = tmp_path_factory.mktemp("linux-disk")
    image = directory / "linux.save"
    guest = LinuxDiskGuest(directory, linux_files).start()
    try:
        checksums = guest.wait_filled(), guest.wait_written()
        guest.wait_new_disk_pass()
        do_save(guest.qmp_socket, image)
        guest.kill()
        lines = guest.disk_passes[-1].lines
        yield Saved(guest, image, *checksums, lines, guest.disk.look(directory / "then.raw"))
    finally:
        guest.close()
        # Pytest keeps its directories.
        for path in (image, *directory.glob("*.raw")):
            path.unlink(missing_ok=True)


def test_the_disk_alone_lacks_what_the_guest_had_written_and_not_synced(saved):
    disk = saved.disk_then
    assert not disk.was_unmounted
    disk.recover()
    assert disk.problems() == ""
    synced, unsynced = (disk.read(name).count(b"\n") for name in ("synced", "unsynced"))
    assert synced >= saved.reported_lines > unsynced
    assert hashlib.md5(disk.read("random")).hexdigest() == saved.file_checksum


def test_memory_and_disk_come_back_together_and_nothing_the_guest_wrote_is_lost(saved, tmp_path):
    guest = saved.guest
    assert not guest.alive()
    assert bring_back(saved.image)["guest"]["state"] == "running"
    assert guest.wait_new_pass() == saved.memory_checksum
    assert guest.wait_new_disk_pass().checksum == saved.file_checksum
    assert [made.lines for made in guest.disk_passes] == list(range(1, len(guest.disk_passes) + 1))
    assert {made.checksum for made in guest.disk_passes} == {saved.file_checksum}
    lines = guest.leave_disk()
    assert guest.complaints == []
    guest.quit()

    disk = guest.disk.look(tmp_path / "now.raw")
    assert disk.problems() == ""
    assert disk.was_unmounted
    assert hashlib.md5(disk.read("random")).hexdigest() == saved.file_checksum
    assert lines > saved.reported_lines
    assert disk.read("synced") == disk.read("unsynced") == numbered_lines(lines)
