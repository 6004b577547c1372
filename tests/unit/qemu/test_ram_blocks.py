# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RAM blocks and machine types of a live QEMU against those of an image."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import MonitorError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._ram_blocks import (
    LiveRamBlock,
    compare,
    compare_machine,
    parse_info_ramblock,
)

MiB = 1 << 20

# Answer of QEMU 10.0.2: a pc with 64 MiB, a plugged pc-dimm and a memory backend nobody uses.
INFO_RAMBLOCK = """\
              Block Name    PSize              Offset               Used              Total                HVA  RO\r
                  pc.ram    4 KiB  0x0000000002000000 0x0000000004000000 0x0000000004000000 0x00007f861fe00000  rw\r
                            4 KiB  0x0000000000000000 0x0000000002000000 0x0000000002000000 0x00007f8629e00000  rw\r
    /rom@etc/acpi/tables    4 KiB  0x0000000006080000 0x0000000000020000 0x0000000000200000 0x00007f8638400000  ro\r
    0000:00:01.0/vga.vram    2 MiB  0x0000000006000000 0x0000000000040000 0x0000000000040000 0x00007f8638a00000  ro\r
"""  # noqa: E501 - the width is QEMU's


def live(name: str, used_bytes: int, total_bytes: int | None = None) -> LiveRamBlock:
    total = used_bytes if total_bytes is None else total_bytes
    return LiveRamBlock(name, 4096, used_bytes, total, 0x7F0000000000)


def test_parses_names_sizes_and_addresses() -> None:
    assert parse_info_ramblock(INFO_RAMBLOCK) == (
        LiveRamBlock("pc.ram", 4096, 64 * MiB, 64 * MiB, 0x7F861FE00000),
        LiveRamBlock("/rom@etc/acpi/tables", 4096, 0x20000, 2 * MiB, 0x7F8638400000),
        LiveRamBlock("0000:00:01.0/vga.vram", 2 * MiB, 0x40000, 0x40000, 0x7F8638A00000),
    )


def test_a_block_without_a_name_never_migrates_and_is_left_out() -> None:
    assert "" not in [block.name for block in parse_info_ramblock(INFO_RAMBLOCK)]


def test_the_access_column_of_newer_qemus_may_be_missing() -> None:
    older = INFO_RAMBLOCK.replace("  rw\r", "\r").replace("  ro\r", "\r")
    assert parse_info_ramblock(older) == parse_info_ramblock(INFO_RAMBLOCK)


def test_a_name_may_hold_blanks() -> None:
    text = INFO_RAMBLOCK.replace("                  pc.ram", "           my own memory")
    assert parse_info_ramblock(text)[0].name == "my own memory"


@pytest.mark.parametrize(
    ("unit", "size_bytes"), [("512 B", 512), ("64 KiB", 65536), ("1 GiB", 1 << 30)]
)
def test_page_sizes_have_units(unit: str, size_bytes: int) -> None:
    text = INFO_RAMBLOCK.replace("4 KiB", unit)
    assert parse_info_ramblock(text)[0].page_size_bytes == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        INFO_RAMBLOCK.splitlines()[0],
        "unknown command: 'info ramblock'\r\n",
        INFO_RAMBLOCK.replace("0x0000000002000000", "lots", 1),
    ],
    ids=["empty", "header only", "no such command", "not a number"],
)
def test_an_answer_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(MonitorError, match="info ramblock"):
        parse_info_ramblock(text)


@pytest.mark.parametrize("layout", ["mapped-ram", "sequential"])
def test_equal_blocks_in_any_order_do_not_differ(layout: str) -> None:
    image = [("pc.ram", 64 * MiB), ("pc.bios", 0x40000)]
    assert compare(image, [live("pc.bios", 0x40000), live("pc.ram", 64 * MiB)], layout) == ()


@pytest.mark.parametrize("layout", ["mapped-ram", "sequential"])
@pytest.mark.parametrize("live_mib", [32, 128])
def test_ram_of_another_size_differs_with_both_figures(layout: str, live_mib: int) -> None:
    (difference,) = compare([("pc.ram", 64 * MiB)], [live("pc.ram", live_mib * MiB)], layout)
    assert "pc.ram" in difference
    assert f"{64 * MiB} bytes in the image" in difference
    assert f"{live_mib * MiB} bytes in this QEMU" in difference


@pytest.mark.parametrize(
    ("image_bytes", "layout", "fits"),
    [
        (0x20000, "mapped-ram", True),
        (0x40000, "mapped-ram", False),
        (0x10000, "mapped-ram", False),
        (0x40000, "sequential", True),
        (0x10000, "sequential", True),
        (0x200000, "sequential", True),
        (0x201000, "sequential", False),
    ],
)
def test_only_a_sequential_load_resizes_and_only_within_the_total(
    image_bytes: int, layout: str, fits: bool
) -> None:
    tables = live("/rom@etc/acpi/tables", 0x20000, total_bytes=0x200000)
    differences = compare([("/rom@etc/acpi/tables", image_bytes)], [tables], layout)
    assert (differences == ()) == fits


@pytest.mark.parametrize("layout", ["mapped-ram", "sequential"])
def test_a_block_on_one_side_only_differs(layout: str) -> None:
    missing, extra = compare([("dimm1", MiB)], [live("dimm2", 2 * MiB)], layout)
    assert (
        missing == f"RAM block dimm1 has {MiB} bytes in the image and does not exist in this QEMU"
    )
    assert extra == (
        f"RAM block dimm2 has {2 * MiB} bytes in this QEMU and does not exist in the image"
    )


@pytest.mark.parametrize(
    ("image", "qom_type"),
    [("pc-i440fx-10.0", "pc-i440fx-10.0-machine"), ("virt-9.2", "virt-9.2-machine")],
)
def test_a_machine_type_equals_its_qom_type(image: str, qom_type: str) -> None:
    assert compare_machine(image, qom_type) is None


@pytest.mark.parametrize("qom_type", ["pc-q35-10.0-machine", "pc-i440fx-9.2-machine"])
def test_another_machine_or_version_differs_and_both_are_named(qom_type: str) -> None:
    difference = compare_machine("pc-i440fx-10.0", qom_type)
    assert difference is not None
    assert "pc-i440fx-10.0" in difference
    assert difference.endswith(qom_type[: -len("-machine")])
