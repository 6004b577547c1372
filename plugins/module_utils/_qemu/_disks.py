# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The disks of a guest: which device shows which image, with its whole backing chain.

Source: QEMU qapi/block-core.json of 10.0 (query-block, ImageInfo).
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass

_PROTOCOL = re.compile(r"[A-Za-z0-9+_-]+:")


@dataclass(frozen=True)
class DiskImage:
    """One image of a chain. ``filename``: an absolute path where it is a file on this host, else
    as QEMU calls it (a network address, a json: description)."""

    image_format: str
    filename: str
    virtual_size_bytes: int

    @classmethod
    def from_dict(cls, data: object) -> DiskImage | None:
        """What `Disk.as_dict` wrote of one, or None when ``data`` is not that."""
        if not isinstance(data, dict):
            return None
        image_format, filename = data.get("image_format"), data.get("filename")
        size = data.get("virtual_size_bytes")
        if not (
            isinstance(image_format, str) and isinstance(filename, str) and isinstance(size, int)
        ):
            return None
        return cls(image_format, filename, size)


@dataclass(frozen=True)
class Disk:
    """``device``: the device that shows it, in words; ``chain``: from the image that the guest
    writes to down to the last backing file, empty for a drive without a medium; ``node_name``: of
    the first, empty likewise and not compared."""

    device: str
    read_only: bool
    chain: tuple[DiskImage, ...]
    node_name: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "device": self.device,
            "read_only": self.read_only,
            "node_name": self.node_name,
            "chain": [vars(image).copy() for image in self.chain],
        }

    @classmethod
    def from_dict(cls, data: object) -> Disk | None:
        """What `as_dict` wrote, or None when ``data`` is not that."""
        if not isinstance(data, dict) or not isinstance(data.get("chain"), list):
            return None
        chain = [DiskImage.from_dict(image) for image in data["chain"]]
        device, read_only = data.get("device"), data.get("read_only")
        node_name = data.get("node_name")
        if not (
            isinstance(device, str) and isinstance(read_only, bool) and isinstance(node_name, str)
        ):
            return None
        known = tuple(image for image in chain if image is not None)
        return cls(device, read_only, known, node_name) if len(known) == len(chain) else None


def parse_disk(entry: t.Mapping[str, t.Any], device: str, working_directory: str | None) -> Disk:
    """One entry of query-block. ``working_directory``: QEMU's, for relative names."""
    inserted = entry.get("inserted")
    if inserted is None:
        return Disk(device, False, ())
    chain = []
    image = inserted["image"]
    while image is not None:
        chain.append(
            DiskImage(
                image["format"],
                locate(image["filename"], working_directory),
                image["virtual-size"],
            )
        )
        image = image.get("backing-image")
    return Disk(device, inserted["ro"], tuple(chain), inserted.get("node-name", ""))


def locate(filename: str, working_directory: str | None) -> str:
    """A file's absolute path, where QEMU's name of an image is one or leads to one."""
    plain = _described_file(filename)
    if _PROTOCOL.match(plain) or os.path.isabs(plain) or working_directory is None:
        return plain
    return os.path.normpath(os.path.join(working_directory, plain))


def _described_file(filename: str) -> str:
    """The file that a json: name comes down to; the name itself where it is none or has none."""
    if not filename.startswith("json:"):
        return filename
    try:
        node = json.loads(filename[len("json:") :])
    except ValueError:
        return filename
    while isinstance(node, dict):
        found = node.get("filename")
        if node.get("driver") in ("file", "host_device") and isinstance(found, str):
            return found
        node = node.get("file")
    return filename
