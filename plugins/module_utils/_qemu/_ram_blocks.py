# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""RAM blocks and machine type of a live QEMU, compared with those of an image.

A mapped-ram load compares neither sizes nor names of blocks that the image lacks, and reports
success with wrong RAM (spec/qemu.md 0.4, 3.4); so they are compared here before it starts.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .._errors import MonitorError

MAPPED_RAM = "mapped-ram"
_MACHINE_SUFFIX = "-machine"

# Name (right-aligned, empty for a block that never migrates), page size, offset, used, total,
# host address, and since 8.0 access: system/physmem.c, ram_block_format().
_ROW = re.compile(
    r"\s*(?P<name>.*?)\s+(?P<page>\d+) (?P<unit>[KMGT]i)?B"
    r"\s+0x[0-9a-f]+\s+(?P<used>0x[0-9a-f]+)\s+(?P<total>0x[0-9a-f]+)"
    r"\s+(?P<host>0x[0-9a-f]+)(?:\s+r[ow])?\s*"
)
_UNIT_BYTES = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


@dataclass(frozen=True)
class LiveRamBlock:
    """One RAM block. ``used_bytes`` is its length now, ``total_bytes`` the most it can grow to,
    ``page_size_bytes`` that of the host memory behind it, ``host_address`` in QEMU's process."""

    name: str
    page_size_bytes: int
    used_bytes: int
    total_bytes: int
    host_address: int


def parse_info_ramblock(text: str) -> tuple[LiveRamBlock, ...]:
    """Read the answer of HMP ``info ramblock``, in QEMU's order.

    Blocks without a name are left out: QEMU names exactly those that migrate. Raises
    `MonitorError` for a row that cannot be read, or when there is none.
    """
    rows = [line for line in text.splitlines()[1:] if line.strip()]
    if not rows:
        raise MonitorError(f"QEMU answered info ramblock with no RAM block: {text!r}.")
    return tuple(block for block in map(_parse_row, rows) if block.name)


def _parse_row(line: str) -> LiveRamBlock:
    row = _ROW.fullmatch(line)
    if row is None:
        raise MonitorError(f"QEMU answered info ramblock with an unknown row: {line!r}.")
    return LiveRamBlock(
        name=row["name"],
        page_size_bytes=int(row["page"]) * _UNIT_BYTES[row["unit"]],
        used_bytes=int(row["used"], 16),
        total_bytes=int(row["total"], 16),
        host_address=int(row["host"], 16),
    )


def compare(
    image_blocks: t.Sequence[tuple[str, int]],
    live: t.Sequence[LiveRamBlock],
    layout: str,
) -> tuple[str, ...]:
    """Differences, each in words with both figures; empty when the image fits.

    ``image_blocks``: (name, length in bytes). With the layout mapped-ram every length must be
    equal; a sequential load grows and shrinks blocks that QEMU can resize (ACPI tables).
    """
    in_image = dict(image_blocks)
    in_qemu = {block.name: block for block in live}
    differences = []
    for name, image_bytes in image_blocks:
        block = in_qemu.get(name)
        if block is None:
            differences.append(
                f"RAM block {name} has {image_bytes} bytes in the image and does not exist in "
                "this QEMU"
            )
        elif image_bytes != block.used_bytes and not _resizes(block, image_bytes, layout):
            differences.append(
                f"RAM block {name} has {image_bytes} bytes in the image and {block.used_bytes} "
                "bytes in this QEMU"
            )
    differences += [
        f"RAM block {block.name} has {block.used_bytes} bytes in this QEMU and does not exist in "
        "the image"
        for block in live
        if block.name not in in_image
    ]
    return tuple(differences)


def _resizes(block: LiveRamBlock, image_bytes: int, layout: str) -> bool:
    resizable = block.total_bytes > block.used_bytes
    return layout != MAPPED_RAM and resizable and image_bytes <= block.total_bytes


def compare_machine(image_machine: str, live_qom_type: str) -> str | None:
    """The difference in words, or None when both are the same machine type.

    ``image_machine`` as in the stream (pc-i440fx-10.0); ``live_qom_type`` is QOM's type of
    /machine (pc-i440fx-10.0-machine).
    """
    live = live_qom_type
    if live.endswith(_MACHINE_SUFFIX):
        live = live[: -len(_MACHINE_SUFFIX)]
    if image_machine == live:
        return None
    return f"the image was saved from machine type {image_machine} and this QEMU runs {live}"
