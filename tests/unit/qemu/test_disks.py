# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of a guest: the chain of images behind a device, and names of files."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._disks import (
    Disk,
    DiskImage,
    locate,
    parse_disk,
)

DEVICE = "virtio-blk-pci (on pcie.0, addr 03.0)"


def an_image(filename, image_format="qcow2", backing=None):
    image = {"filename": filename, "format": image_format, "virtual-size": 1 << 30}
    return dict(image, **{"backing-image": backing}) if backing else image


def entry(image, **fields):
    inserted = {"image": image, "ro": False, "node-name": "disk0", **fields}
    return {"device": "virtio0", "inserted": inserted}


def test_the_chain_goes_down_to_the_last_backing_file():
    chain = an_image("/d/top", backing=an_image("/d/middle", backing=an_image("/d/base", "raw")))
    disk = parse_disk(entry(chain), DEVICE, "/")
    assert [(image.filename, image.image_format) for image in disk.chain] == [
        ("/d/top", "qcow2"),
        ("/d/middle", "qcow2"),
        ("/d/base", "raw"),
    ]
    assert disk.chain[0].virtual_size_bytes == 1 << 30
    assert (disk.device, disk.read_only, disk.node_name) == (DEVICE, False, "disk0")


def test_a_drive_without_a_medium_has_an_empty_chain():
    assert parse_disk({"device": "cd0"}, DEVICE, "/") == Disk(DEVICE, False, ())


@pytest.mark.parametrize(
    ("filename", "where"),
    [
        ("/srv/a.qcow2", "/srv/a.qcow2"),
        ("a.qcow2", "/vm/a.qcow2"),
        ("../a.qcow2", "/a.qcow2"),
        ("nbd://host/a", "nbd://host/a"),
        ("rbd:pool/a", "rbd:pool/a"),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"a"}}', "/vm/a"),
        (
            'json:{"driver":"raw","file":{"driver":"nbd","host":"h"}}',
            'json:{"driver":"raw","file":{"driver":"nbd","host":"h"}}',
        ),
        ("json:{", "json:{"),
    ],
)
def test_a_file_of_this_host_is_known_by_its_absolute_path(filename, where):
    assert locate(filename, "/vm") == where


def test_where_qemus_directory_cannot_be_seen_a_relative_name_stays():
    assert locate("a.qcow2", None) == "a.qcow2"


def test_what_was_written_is_read_back():
    disk = parse_disk(entry(an_image("/d/top", backing=an_image("/d/base"))), DEVICE, "/")
    assert Disk.from_dict(disk.as_dict()) == disk


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"device": "d", "read_only": False, "node_name": "n", "chain": [{}]},
        {"device": 1, "read_only": False, "node_name": "n", "chain": []},
    ],
)
def test_what_is_no_disk_is_not_taken_for_one(data):
    assert Disk.from_dict(data) is None


def test_an_image_is_its_format_its_file_and_its_size():
    one = DiskImage("qcow2", "/d/a", 1)
    assert one != DiskImage("raw", "/d/a", 1)
    assert one != DiskImage("qcow2", "/d/b", 1)
    assert one != DiskImage("qcow2", "/d/a", 2)
