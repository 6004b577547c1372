# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Disks of a rehearsal: each is read through an overlay of its own, and none is written or locked.

A ``-drive`` makes its overlay itself (``snapshot=on``: a file in TMPDIR that is unlinked at once).
For a ``-blockdev`` an overlay is put on the writable top node and takes its name, so that devices
find it. The nodes below are opened read-only with ``force-share``, which takes no lock that a QEMU
with the same disks could meet (QEMU block.c, blockdev.c and system/vl.c of 10.0).
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from ._command_line import TRUE_WORDS, Option, json_of, keys_of, text_of
from ._disks import locate
from ._option_value import flat_keys, is_on, to_json

# Options that name one image, and what -drive calls the same.
_SHORT_FORMS: t.Mapping[str, t.Mapping[str, str]] = {
    "hda": {"index": "0", "media": "disk"},
    "hdb": {"index": "1", "media": "disk"},
    "hdc": {"index": "2", "media": "disk"},
    "hdd": {"index": "3", "media": "disk"},
    "cdrom": {"index": "2", "media": "cdrom"},
    "fda": {"if": "floppy", "index": "0"},
    "fdb": {"if": "floppy", "index": "1"},
    "pflash": {"if": "pflash"},
    "mtdblock": {"if": "mtd"},
    "sd": {"if": "sd"},
}
DRIVES = frozenset({"drive", *_SHORT_FORMS})
_SHARED = {"read-only": "on", "force-share": "on"}
# These drive the hardware, or a backend that another process serves.
_DIRECT_DRIVERS = ("nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-user", "virtio-blk-vhost-vdpa")
_DIRECT_ADDRESS = "nvme://"
_FILE = re.compile(r"(file\.)*file")
_FILENAME = re.compile(r"(file\.)*filename")
_NO_REFERENCES = ("node-name", "driver", "filename")


@dataclass(frozen=True)
class Overlay:
    """An empty qcow2 file that stands in for the block node ``node_name``."""

    path: str
    node_name: str
    size_bytes: int


def rehearsed_drive(option: Option) -> tuple[str, ...]:
    """A ``-drive`` or one of its short forms, or a bare image, with an overlay of its own.

    A drive without a medium stays as it is. Raises `Refused`, a clause, when it
    drives hardware.
    """
    if option.name == "drive":
        keys = keys_of(f"=,{option.value}", "")  # no first word that goes without its key
        del keys[""]
    elif option.name is None:
        keys = {"file": option.words[0], **_SHORT_FORMS["hda"]}
    else:
        keys = {"file": option.value or "", **_SHORT_FORMS[option.name]}
    if not keys.get("file"):
        keys.pop("file", None)
        if not any(key in ("driver", "format") or key.startswith("file.") for key in keys):
            return option.words
    _refuse_hardware("-drive", keys)
    keys = {key: _nested_switch(key, value) for key, value in keys.items()}
    _read_json_filename(keys)
    keys.update({"snapshot": "on", "force-share": "on"})
    return ("-drive", text_of(keys, ""))


def _nested_switch(key: str, value: str) -> str:
    """A child's own switch would contradict what it is to inherit."""
    return "on" if key.rpartition(".")[0] and key.rpartition(".")[2] in _SHARED else value


def _read_json_filename(keys: dict[str, str]) -> None:
    prefix = "json:"
    image = keys.get("file", "")
    described = json_of(image[len(prefix) :]) if image.startswith(prefix) else None
    if described is None:
        return
    _refuse_hardware("-drive", dict(flat_keys(image[len(prefix) :], "")))
    # The overlay of a read-only disk must be read-only too: the guest knows it as such.
    if described.pop("read-only", False) in (True, *TRUE_WORDS):
        keys["read-only"] = "on"
    described.pop("force-share", None)
    keys["file"] = prefix + to_json(_all_shared(described))


def _all_shared(value: t.Any) -> t.Any:
    """The description of a node in JSON, with every switch in it that is given set."""
    if isinstance(value, dict):
        return {key: key in _SHARED or _all_shared(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_all_shared(member) for member in value]
    return value


def _refuse_hardware(option: str, keys: t.Mapping[str, str]) -> None:
    for key, value in keys.items():
        last = key.rpartition(".")[2]
        if (last in ("driver", "format") and value in _DIRECT_DRIVERS) or (
            last in ("file", "filename") and value.startswith(_DIRECT_ADDRESS)
        ):
            raise Refused(f"{option}: its block driver has no second user beside the guest")


class BlockNodes:
    """The ``-blockdev`` options of one command line; each is then rewritten in turn.

    ``sizes``: virtual size in bytes of a disk, by node name, or by absolute path of its file.
    """

    def __init__(
        self, options: t.Iterable[Option], scratch: str, sizes: t.Mapping[str, int], cwd: str
    ) -> None:
        self._scratch = scratch
        self._sizes = sizes
        self._cwd = cwd
        self._nodes: dict[str, dict[str, str]] = {}
        for option in options:
            if option.name == "blockdev" and option.value:
                keys = flat_keys(option.value, "driver")
                self._nodes[keys.get("node-name", "")] = keys
        self._children = {
            value
            for keys in self._nodes.values()
            for key, value in keys.items()
            if key.rpartition(".")[2] not in _NO_REFERENCES
        }
        self.overlays: list[Overlay] = []

    def rehearsed(self, option: Option) -> tuple[str, ...]:
        """The words for one ``-blockdev``. Raises `Refused`, a clause, when it drives hardware, or
        when an overlay's size is not known."""
        value = option.value or ""
        keys = flat_keys(value, "driver")
        name = keys.get("node-name", "")
        _refuse_hardware(f"-blockdev {name}", keys)
        if name in self._children or is_on(keys, "read-only"):
            return ("-blockdev", _shared_node(value, name))
        number = len(self.overlays)
        overlay = Overlay(
            os.path.join(self._scratch, f"overlay{number}.qcow2"), name, self._size_bytes(name)
        )
        self.overlays.append(overlay)
        below = self._free_name(number)
        top = {
            "driver": "qcow2",
            "node-name": name,
            "file": {"driver": "file", "filename": overlay.path},
            "backing": below,
        }
        return ("-blockdev", _shared_node(value, below), "-blockdev", to_json(top))

    def _free_name(self, number: int) -> str:
        name = f"rehearsed-{number}"
        while name in self._nodes:
            name += "-"
        return name

    def _size_bytes(self, name: str) -> int:
        if name in self._sizes:
            return self._sizes[name]
        size_bytes = self._sizes.get(self._path(name) or "")
        if size_bytes is None:
            raise Refused(f"-blockdev {name}: the size of its disk, for an overlay, is not known")
        return size_bytes

    def _path(self, name: str) -> str | None:
        """The file at the bottom of a chain of formats and filters."""
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            for key, value in self._nodes.get(name, {}).items():
                if _FILE.fullmatch(key):
                    name = value
                elif _FILENAME.fullmatch(key):
                    return locate(value, self._cwd)
        return None


def _shared_node(value: str, name: str) -> str:
    """A node's description, read-only as far down as it reaches, and under another name."""
    if json_of(value) is not None:
        described = _all_shared(json.loads(value))
        return to_json({**described, "node-name": name, "read-only": True, "force-share": True})
    keys = {key: _nested_switch(key, word) for key, word in keys_of(value, "driver").items()}
    return text_of({**keys, "node-name": name, **_SHARED}, "driver")
