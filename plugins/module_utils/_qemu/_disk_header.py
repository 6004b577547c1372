# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What the beginning of a disk image says: its format, and the fields that move when it changes.

Source: QEMU docs/interop/qcow2.rst; magics of the others from block/*.c of 10.0.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t

_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_FIELDS = (
    "magic",
    "version",
    "backing_file_offset",
    "backing_file_bytes",
    "cluster_bits",
    "virtual_size_bytes",
    "encryption",
    "l1_entries",
    "l1_table_offset",
    "refcount_table_offset",
    "refcount_table_clusters",
    "snapshots",
    "snapshots_offset",
)
_QCOW2_FEATURES = struct.Struct(">QQQ")
_QCOW2_BEHIND_VERSION_2 = 72
_QCOW_1 = b"QFI\xfb\0\0\0\1"  # another header behind the same magic (block/qcow.c)
_MAGICS: t.Mapping[bytes, str] = {
    _QCOW_1: "qcow",
    b"QFI\xfb": "qcow2",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"LUKS\xba\xbe": "luks",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
}


def header_facts(header: bytes) -> dict[str, str | int]:
    """``header``: the first 4 KiB. Any change of them shows at least in ``header_sha256``."""
    found = next((name for magic, name in _MAGICS.items() if header.startswith(magic)), "raw")
    facts: dict[str, str | int] = {"header_format": found}
    if found == "qcow2" and len(header) >= _QCOW2.size:
        facts.update(_qcow2_facts(header))
    facts["header_sha256"] = hashlib.sha256(header).hexdigest()
    return facts


def _qcow2_facts(header: bytes) -> dict[str, str | int]:
    values = dict(zip(_QCOW2_FIELDS, _QCOW2.unpack_from(header)))
    del values["magic"]
    start, length = values.pop("backing_file_offset"), values.pop("backing_file_bytes")
    facts = {f"qcow2_{name}": value for name, value in values.items()}
    if start:
        facts["qcow2_backing_file"] = header[start : start + length].decode("utf-8", "replace")
    end = _QCOW2_BEHIND_VERSION_2 + _QCOW2_FEATURES.size
    if values["version"] >= 3 and len(header) >= end:
        incompatible, _compatible, autoclear = _QCOW2_FEATURES.unpack_from(
            header, _QCOW2_BEHIND_VERSION_2
        )
        facts.update(qcow2_incompatible_features=incompatible, qcow2_autoclear_features=autoclear)
    return facts
