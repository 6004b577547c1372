# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file that libvirt wrote is taken for, and what is noted of its domain's disks."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fingerprint import (
    UNREADABLE,
    Fingerprint,
    fingerprint,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_written import (
    look_at_disks,
    may_be_whole,
    written_since,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._record import disks_record
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._domain_machine import (
    machine_of,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import (
    MAGIC_COMPLETE,
    MAGIC_PARTIAL,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    PartialImage,
)

DISK = "<domain><devices><disk><source file='{}'/></disk></devices></domain>"
RBD = "<domain><devices><disk><source protocol='rbd' name='p/i'/></disk></devices></domain>"


@pytest.fixture
def image(tmp_path):
    image = PartialImage.create(str(tmp_path / "a.save"))
    yield image
    image.close()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", False, id="empty"),
        pytest.param(bytes(64), False, id="zeros"),
        pytest.param(MAGIC_PARTIAL + bytes(64), False, id="unfinished"),
        pytest.param(MAGIC_COMPLETE + b"nonsense", True, id="finished, and not understood"),
        pytest.param(b"something else", True, id="nobody knows what"),
    ],
)
def test_only_what_cannot_be_an_image_may_be_removed(image, content, expected):
    os.pwrite(image.fd, content, 0)
    assert may_be_whole(image) is expected


def test_disks_that_nobody_here_can_look_at_are_recorded_as_such(tmp_path):
    machine = machine_of(RBD)
    assert machine is not None
    record = disks_record(look_at_disks(machine), others=machine.other_disks)
    (entry,) = record["disks"]["files"]
    noted = Fingerprint.from_dict(entry)
    assert noted is not None
    assert noted.kind == UNREADABLE
    assert "no files or devices of this host" in noted.path

    file = tmp_path / "disk"
    file.write_bytes(b"x")
    plain = disks_record([fingerprint(str(file))], others=False)
    assert [one["path"] for one in plain["disks"]["files"]] == [str(file)]


def test_a_disk_that_was_written_after_the_image_tells_that_the_domain_has_run(image, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x")
    machine = machine_of(DISK.format(disk))
    written = os.fstat(image.fd).st_mtime_ns
    for when, expected in ((written - 1, []), (written, []), (written + 1, [str(disk)])):
        os.utime(disk, ns=(when, when))
        assert written_since(image, machine) == expected
    disk.unlink()
    assert written_since(image, machine) == []
    assert written_since(image, None) == []
