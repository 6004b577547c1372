# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny guest on paper: its machine code, its pattern, its report lines."""

from __future__ import annotations

import ast
from pathlib import Path

import capstone
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.playbooks.files import tiny_guest
from ansible_collections.vmfleet.suspend.playbooks.files.tiny_guest import (
    MIB_BYTES,
    PAGE_BYTES,
    REGION_LIMIT_BYTES,
    Line,
    Pass,
    Ready,
    Regions,
    build,
    expected_page,
    listing,
    main,
    parse_line,
    pattern_dword,
)

REGIONS = Regions(pattern_bytes=16 * MIB_BYTES, zero_bytes=8 * MIB_BYTES)
LINES = listing(REGIONS)
INSTRUCTIONS = [line for line in LINES if line.bits]
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32}
DWORD_ADDRESSES = st.integers(0, 2**30 - 1).map(lambda number: number * 4)


def disassemble(line: Line) -> list[str]:
    machine = capstone.Cs(capstone.CS_ARCH_X86, MODES[line.bits])
    return [
        f"{instruction.mnemonic} {instruction.op_str}".strip()
        for instruction in machine.disasm(line.code, line.address)
    ]


@pytest.mark.parametrize("line", INSTRUCTIONS, ids=lambda line: f"{line.address:x}")
def test_each_line_is_the_one_instruction_that_is_written_beside_its_bytes(line: Line) -> None:
    assert disassemble(line) == [line.text]


def test_an_instruction_that_is_not_what_its_text_says_would_be_noticed() -> None:
    wrong = Line(address=0x7C00, code=b"\xf4", bits=32, text="nop")
    assert disassemble(wrong) != [wrong.text]


def test_the_lines_follow_one_another_from_where_the_firmware_puts_them() -> None:
    address = 0x7C00
    for line in LINES:
        assert line.address == address
        address += len(line.code)


def test_every_jump_leads_to_the_beginning_of_an_instruction() -> None:
    starts = {hex(line.address) for line in INSTRUCTIONS}
    targets = {
        line.text.split()[-1]
        for line in INSTRUCTIONS
        if line.text[0] == "j" or line.text.startswith(("call", "loop"))
    }
    assert targets
    assert targets <= starts


def test_the_disk_is_a_bootable_sector_with_the_program_and_nothing_else() -> None:
    disk = build(REGIONS.pattern_bytes, REGIONS.zero_bytes)
    code = b"".join(line.code for line in LINES)
    assert disk[: len(code)] == code
    assert disk[len(code) : 510].strip(b"\0") == b""
    assert disk[510:512] == b"\x55\xaa"
    assert disk[512:] == bytes(MIB_BYTES - 512)


@pytest.mark.parametrize(
    ("pattern_bytes", "zero_bytes", "pattern_start_bytes"),
    [
        (0, PAGE_BYTES, 2 * MIB_BYTES),
        (PAGE_BYTES + 4, PAGE_BYTES, 2 * MIB_BYTES),
        (PAGE_BYTES, 512, 2 * MIB_BYTES),
        (PAGE_BYTES, -PAGE_BYTES, 2 * MIB_BYTES),
        (PAGE_BYTES, PAGE_BYTES, MIB_BYTES - PAGE_BYTES),
        (REGION_LIMIT_BYTES - MIB_BYTES, PAGE_BYTES, MIB_BYTES),
    ],
    ids=["no pattern", "part page", "part zero page", "negative", "low memory", "past the limit"],
)
def test_regions_that_the_guest_could_not_check_are_refused(
    pattern_bytes: int, zero_bytes: int, pattern_start_bytes: int
) -> None:
    with pytest.raises(ValueError, match="regions"):
        build(pattern_bytes, zero_bytes, pattern_start_bytes)


def test_the_regions_may_reach_up_to_the_limit() -> None:
    largest = Regions(REGION_LIMIT_BYTES - MIB_BYTES, 0, MIB_BYTES)
    assert largest.end_bytes == REGION_LIMIT_BYTES
    assert largest.pages == (REGION_LIMIT_BYTES - MIB_BYTES) // PAGE_BYTES


@given(DWORD_ADDRESSES, DWORD_ADDRESSES)
def test_no_two_dwords_of_the_pattern_are_equal_and_none_is_zero(one: int, other: int) -> None:
    assume(one != other)
    assert 0 < pattern_dword(one) < 2**32
    assert pattern_dword(one) != pattern_dword(other)


@given(DWORD_ADDRESSES)
def test_the_expected_page_holds_the_dword_of_each_of_its_addresses(address: int) -> None:
    page = expected_page(address)
    offset = address % PAGE_BYTES
    assert len(page) == PAGE_BYTES
    assert int.from_bytes(page[offset : offset + 4], "little") == pattern_dword(address)


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (
            "READY START 00200000 PATTERN 00001000 ZERO 00000800\n",
            Ready(pattern_start_bytes=0x200000, pattern_pages=0x1000, zero_pages=0x800),
        ),
        (
            "PASS 0000002A PAGES 00001800 WRONG 00000000 AT 00000000\n",
            Pass(number=42, pages=0x1800, wrong_dwords=0, first_wrong_address=None),
        ),
        (
            "PASS 0000002B PAGES 00001800 WRONG 00000003 AT 0030FFFC\n",
            Pass(number=43, pages=0x1800, wrong_dwords=3, first_wrong_address=0x30FFFC),
        ),
        ("PASS 0000002B PAGES 00001800 WRONG 0000", None),
        ("Booting from Hard Disk...\r\n", None),
        ("\n", None),
    ],
)
def test_a_serial_line_is_read_as_the_guest_means_it(line: str, report: object) -> None:
    assert parse_line(line) == report


def test_the_command_writes_the_disk_for_the_sizes_asked(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    sizes = ["--pattern-mib", "3", "--zero-mib", "5", "--pattern-start-mib", "4"]
    assert main(["--output", str(disk), *sizes]) == 0
    assert disk.read_bytes() == build(3 * MIB_BYTES, 5 * MIB_BYTES, 4 * MIB_BYTES)


def test_the_command_says_what_it_cannot_build_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    with pytest.raises(SystemExit) as exit_status:
        main(["--output", str(disk), "--pattern-mib", "4096", "--zero-mib", "1"])
    assert exit_status.value.code == 2
    assert "2048 MiB" in capsys.readouterr().err
    assert not disk.exists()


def test_the_program_is_python_3_8() -> None:
    ast.parse(Path(tiny_guest.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
