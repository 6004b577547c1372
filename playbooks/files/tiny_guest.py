# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the tiny guest: a boot sector that proves its own memory.

It fills one region of its RAM with a pattern, never touches the region behind it (which must stay
zero), and then reads every byte of both, over and over, writing one line per pass to COM1. A byte
that came back wrong from a save image is therefore reported by the guest itself. Between passes it
sleeps in ``hlt`` for four times as long as the pass took, so that eight guests share two cores. The
power button switches it off while it sleeps.

Boot it as a disk: ``-drive file=IMAGE,format=raw,if=virtio,readonly=on``; the serial port is
``-serial``. It needs no other device and nothing of its disk once it runs. The regions must end
`FIRMWARE_BYTES` below the end of the guest's RAM.

Needs Python >= 3.8 and nothing else: the machine code stands below as bytes beside mnemonics, which
a unit test compares with a disassembler.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import typing as t
from dataclasses import dataclass

PAGE_BYTES = 4096
MIB_BYTES = 1 << 20
DEFAULT_PATTERN_START_BYTES = 2 * MIB_BYTES
# The firmware (SeaBIOS) leaves code and tables in the last 17 MiB of RAM: not a place for zeros.
FIRMWARE_BYTES = 20 * MIB_BYTES
# RAM below this address is one piece on pc and on q35, whatever the guest's size.
REGION_LIMIT_BYTES = 2048 * MIB_BYTES

# The dword at address A is A * MULTIPLIER + 1 modulo 2**32. MULTIPLIER is odd and A a multiple of
# 4, so no two dwords of the address space are equal, and none is zero: a page that is missing, or
# that came back in another page's place, is noticed.
_MULTIPLIER = 0x9E3779B1
_MASK = 0xFFFFFFFF

_LOAD_ADDRESS = 0x7C00
_CODE_LIMIT_BYTES = 510  # of a sector, before the signature
_BOOT_SIGNATURE = b"\x55\xaa"
_DISK_BYTES = MIB_BYTES  # the firmware reads no disk that is smaller than one cylinder
_FLAT_CODE_SELECTOR = 0x08


@dataclass(frozen=True)
class Regions:
    """Where in guest-physical memory the pattern lies, and the zeros right behind it; in bytes.

    Raises ValueError when they are not whole pages, the pattern is empty, or they do not fit
    between 1 MiB and `REGION_LIMIT_BYTES`.
    """

    pattern_bytes: int
    zero_bytes: int
    pattern_start_bytes: int = DEFAULT_PATTERN_START_BYTES

    def __post_init__(self) -> None:
        sizes = (self.pattern_bytes, self.zero_bytes, self.pattern_start_bytes)
        if any(size % PAGE_BYTES or size < 0 for size in sizes) or not self.pattern_bytes:
            raise ValueError(f"regions are whole pages and the pattern is not empty: {sizes}")
        if self.pattern_start_bytes < MIB_BYTES or self.end_bytes > REGION_LIMIT_BYTES:
            raise ValueError(
                f"regions lie between 1 MiB and {REGION_LIMIT_BYTES // MIB_BYTES} MiB, "
                f"not {self.pattern_start_bytes:#x}..{self.end_bytes:#x}"
            )

    @property
    def zero_start_bytes(self) -> int:
        """The address behind the pattern."""
        return self.pattern_start_bytes + self.pattern_bytes

    @property
    def end_bytes(self) -> int:
        """The address behind the zeros."""
        return self.zero_start_bytes + self.zero_bytes

    @property
    def pages(self) -> int:
        """How many pages the guest reads in each pass."""
        return (self.pattern_bytes + self.zero_bytes) // PAGE_BYTES


def pattern_dword(address: int) -> int:
    """What the dword at a guest-physical address, a multiple of 4, holds in the pattern."""
    return (address * _MULTIPLIER + 1) & _MASK


def expected_page(address: int) -> bytes:
    """What the page of the pattern at a guest-physical address holds."""
    first = address - address % PAGE_BYTES
    dwords = (pattern_dword(first + offset) for offset in range(0, PAGE_BYTES, 4))
    return struct.pack(f"<{PAGE_BYTES // 4}I", *dwords)


@dataclass(frozen=True)
class Ready:
    """The guest's first line: memory is filled, in bytes and pages as the guest was built."""

    pattern_start_bytes: int
    pattern_pages: int
    zero_pages: int


@dataclass(frozen=True)
class Pass:
    """One pass over both regions: pages read, dwords that were wrong and where the first one is."""

    number: int
    pages: int
    wrong_dwords: int
    first_wrong_address: int | None


_HEX = "([0-9A-F]{8})"
_READY_LINE = re.compile(f"READY START {_HEX} PATTERN {_HEX} ZERO {_HEX}")
_PASS_LINE = re.compile(f"PASS {_HEX} PAGES {_HEX} WRONG {_HEX} AT {_HEX}")


def parse_line(line: str) -> Ready | Pass | None:
    """Read one line of the serial port; None for an incomplete line or one of the firmware's."""
    text = line.rstrip("\n")
    ready = _READY_LINE.fullmatch(text)
    if ready:
        return Ready(*(int(number, 16) for number in ready.groups()))
    match = _PASS_LINE.fullmatch(text)
    if not match:
        return None
    number, pages, wrong_dwords, address = (int(group, 16) for group in match.groups())
    return Pass(number, pages, wrong_dwords, address if wrong_dwords else None)


@dataclass(frozen=True)
class Line:
    """One line of the program; ``bits`` is 16 or 32 for an instruction and 0 for data."""

    address: int
    code: bytes
    bits: int
    text: str


# label | bytes | mnemonic (of data: what it is). Bytes are hex digits, "text", or references to
# labels and values: rel8 and rel32 count from the end of the line, abs16 and abs32 are values.
_PROGRAM = """
; The firmware jumps here in real mode, address line 20 open. Go to flat protected mode.
.bits 16
start        | fa                            | cli
             | fc                            | cld
             | 31 c0                         | xor ax, ax
             | 8e d8                         | mov ds, ax
             | 0f 01 16 {gdt_register:abs16} | lgdt [{gdt_register}]
             | 0f 20 c0                      | mov eax, cr0
             | 0c 01                         | or al, 1
             | 0f 22 c0                      | mov cr0, eax
             | ea {flat:abs16} 08 00         | ljmp 8:{flat}
.bits 32
flat         | b8 10 00 00 00                | mov eax, 0x10
             | 8e d8                         | mov ds, eax
             | 8e c0                         | mov es, eax
             | 8e d0                         | mov ss, eax
             | bc {start:abs32}              | mov esp, {start}

; Have the power button show in the first of the ACPI registers, where SeaBIOS puts them.
             | 66 ba 02 06                   | mov dx, 0x602
             | b4 01                         | mov ah, 1
             | 66 ef                         | out dx, ax

; Interrupt descriptors for vectors 8..15 at 0x6040, in a table at 0x6000: all are a tick. That is
; where SeaBIOS has the first interrupt controller count from. It lets only the timer through, at
; 50 Hz.
             | bf 40 60 00 00                | mov edi, 0x6040
             | b9 08 00 00 00                | mov ecx, 8
gate         | b8 {gate_low:abs32}           | mov eax, {gate_low}
             | ab                            | stosd dword ptr es:[edi], eax
             | b8 00 8e 00 00                | mov eax, 0x8e00
             | ab                            | stosd dword ptr es:[edi], eax
             | e2 {gate:rel8}                | loop {gate}
             | 0f 01 1d {idt_register:abs32} | lidt [{idt_register}]
             | b0 fe                         | mov al, 0xfe
             | e6 21                         | out 0x21, al
             | b0 34                         | mov al, 0x34
             | e6 43                         | out 0x43, al
             | b0 38                         | mov al, 0x38
             | e6 40                         | out 0x40, al
             | b0 5d                         | mov al, 0x5d
             | e6 40                         | out 0x40, al

; Write the pattern, then say so.
             | e8 {pattern:rel32}            | call {pattern}
fill         | 89 06                         | mov dword ptr [esi], eax
             | 01 e8                         | add eax, ebp
             | 83 c6 04                      | add esi, 4
             | 39 fe                         | cmp esi, edi
             | 75 {fill:rel8}                | jne {fill}
             | fb                            | sti
             | be {ready_text:abs32}         | mov esi, {ready_text}
             | bf {ready_values:abs32}       | mov edi, {ready_values}
             | e8 {print:rel32}              | call {print}

; One pass: ebx counts wrong dwords, edx is where the first one is.
pass         | ff 35 {ticks:abs32}           | push dword ptr [{ticks}]
             | 31 db                         | xor ebx, ebx
             | 31 d2                         | xor edx, edx
             | e8 {pattern:rel32}            | call {pattern}
             | e8 {check:rel32}              | call {check}
             | bf {end:abs32}                | mov edi, {end}
             | 31 c0                         | xor eax, eax
             | 31 ed                         | xor ebp, ebp
             | e8 {check:rel32}              | call {check}
             | 81 ee {pattern_start:abs32}   | sub esi, {pattern_start}
             | c1 ee 0c                      | shr esi, 0xc
             | bf {pass_values:abs32}        | mov edi, {pass_values}
             | ff 07                         | inc dword ptr [edi]
             | 89 77 04                      | mov dword ptr [edi + 4], esi
             | 89 5f 08                      | mov dword ptr [edi + 8], ebx
             | 89 57 0c                      | mov dword ptr [edi + 0xc], edx
             | be {pass_text:abs32}          | mov esi, {pass_text}
             | e8 {print:rel32}              | call {print}

; Sleep four times as long as that took: (elapsed ticks + 1) * 4, counted by the timer.
             | a1 {ticks:abs32}              | mov eax, dword ptr [{ticks}]
             | 5a                            | pop edx
             | 29 d0                         | sub eax, edx
             | 8d 1c 85 04 00 00 00          | lea ebx, [eax*4 + 4]
             | 03 1d {ticks:abs32}           | add ebx, dword ptr [{ticks}]
idle         | f4                            | hlt
             | 66 ba 00 06                   | mov dx, 0x600
             | 66 ed                         | in ax, dx
             | f6 c4 01                      | test ah, 1
             | 75 {off:rel8}                 | jne {off}
             | 39 1d {ticks:abs32}           | cmp dword ptr [{ticks}], ebx
             | 78 {idle:rel8}                | js {idle}
             | eb {pass:rel8}                | jmp {pass}

; The power button was pressed: sleep state 5, at which QEMU ends.
off          | b2 04                         | mov dl, 4
             | b4 20                         | mov ah, 0x20
             | 66 ef                         | out dx, ax
             | f4                            | hlt
             | eb {off:rel8}                 | jmp {off}

; Where the pattern lies, what its first dword is and how much each next one is greater.
pattern      | be {pattern_start:abs32}      | mov esi, {pattern_start}
             | bf {zero_start:abs32}         | mov edi, {zero_start}
             | b8 {first_dword:abs32}        | mov eax, {first_dword}
             | bd {step:abs32}               | mov ebp, {step}
             | c3                            | ret

; Compare the dwords from esi up to edi with eax, which grows by ebp.
check        | 39 fe                         | cmp esi, edi
             | 74 {check_done:rel8}          | je {check_done}
check_dword  | 39 06                         | cmp dword ptr [esi], eax
             | 75 {wrong:rel8}               | jne {wrong}
checked      | 01 e8                         | add eax, ebp
             | 83 c6 04                      | add esi, 4
             | 39 fe                         | cmp esi, edi
             | 75 {check_dword:rel8}         | jne {check_dword}
check_done   | c3                            | ret
wrong        | 85 db                         | test ebx, ebx
             | 75 {count:rel8}               | jne {count}
             | 89 f2                         | mov edx, esi
count        | 43                            | inc ebx
             | eb {checked:rel8}             | jmp {checked}

; Print the text at esi up to its zero byte; each # is the next dword at edi in hex. The loops
; before left 0 in ecx.
print        | ac                            | lodsb al, byte ptr [esi]
             | 84 c0                         | test al, al
             | 74 {check_done:rel8}          | je {check_done}
             | 3c 23                         | cmp al, 0x23
             | 74 {number:rel8}              | je {number}
             | e8 {put:rel32}                | call {put}
             | eb {print:rel8}               | jmp {print}
number       | 8b 1f                         | mov ebx, dword ptr [edi]
             | 83 c7 04                      | add edi, 4
             | b1 08                         | mov cl, 8
digit        | c1 c3 04                      | rol ebx, 4
             | 88 d8                         | mov al, bl
             | 24 0f                         | and al, 0xf
             | 3c 0a                         | cmp al, 0xa
             | 72 {decimal:rel8}             | jb {decimal}
             | 04 07                         | add al, 7
decimal      | 04 30                         | add al, 0x30
             | e8 {put:rel32}                | call {put}
             | e2 {digit:rel8}               | loop {digit}
             | eb {print:rel8}               | jmp {print}

; Send al once the serial port has room.
put          | 50                            | push eax
             | 66 ba fd 03                   | mov dx, 0x3fd
put_wait     | ec                            | in al, dx
             | a8 20                         | test al, 0x20
             | 74 {put_wait:rel8}            | je {put_wait}
             | 66 ba f8 03                   | mov dx, 0x3f8
             | 58                            | pop eax
             | ee                            | out dx, al
             | c3                            | ret

; Count a tick. Return like iretd, which a KVM that has to interpret this code does not know:
; the interrupted flags, then a far return past them.
tick         | ff 05 {ticks:abs32}           | inc dword ptr [{ticks}]
             | 50                            | push eax
             | b0 20                         | mov al, 0x20
             | e6 20                         | out 0x20, al
             | 58                            | pop eax
             | ff 74 24 08                   | push dword ptr [esp + 8]
             | 9d                            | popfd
             | ca 04 00                      | retf 4

.data
; Segment descriptors, table registers, variables, texts.
gdt          | 00 00 00 00 00 00 00 00       | no segment
             | ff ff 00 00 00 9a cf 00       | 4 GiB of code
             | ff ff 00 00 00 92 cf 00       | 4 GiB of data
gdt_register | 17 00 {gdt:abs32}             | limit and address
idt_register | 7f 00 00 60 00 00             | limit and address
ready_values | {pattern_start:abs32}         | where the pattern starts
             | {pattern_pages:abs32}         | how long it is
             | {zero_pages:abs32}            | how long the zeros behind it are
pass_values  | 00 00 00 00                   | how many passes were made
             | 00 00 00 00                   | pages read in this one
             | 00 00 00 00                   | wrong dwords
             | 00 00 00 00                   | address of the first of them
ticks        | 00 00 00 00                   | of the timer since the guest started
ready_text   | "READY START # PATTERN # ZERO #" | printed once
             | 0a 00                         | end of line, end of text
pass_text    | "PASS # PAGES # WRONG # AT #" | printed after each pass
             | 0a 00                         | end of line, end of text
"""
_BYTES = re.compile(r'"(?P<text>[^"]*)"|{(?P<name>\w+):(?P<kind>\w+)}|(?P<hex>[0-9a-f]{2})')
_DIRECTIVES = {".bits 16": 16, ".bits 32": 32, ".data": 0}
_REFERENCE_BYTES = {"rel8": 1, "rel32": 4, "abs16": 2, "abs32": 4}


def _part_bytes(part: t.Match[str]) -> int:
    if part["kind"]:
        return _REFERENCE_BYTES[part["kind"]]
    return 1 if part["hex"] else len(part["text"])


def _part_code(part: t.Match[str], values: dict[str, int], next_address: int) -> bytes:
    if part["hex"]:
        return bytes.fromhex(part["hex"])
    if part["name"] is None:
        return part["text"].encode("ascii")
    length = _REFERENCE_BYTES[part["kind"]]
    if part["kind"].startswith("rel"):
        return (values[part["name"]] - next_address).to_bytes(length, "little", signed=True)
    return values[part["name"]].to_bytes(length, "little")


def listing(regions: Regions) -> list[Line]:
    """The program for these regions, line by line, at the address the firmware loads it to."""
    values = {
        "pattern_start": regions.pattern_start_bytes,
        "zero_start": regions.zero_start_bytes,
        "end": regions.end_bytes,
        "pattern_pages": regions.pattern_bytes // PAGE_BYTES,
        "zero_pages": regions.zero_bytes // PAGE_BYTES,
        "first_dword": pattern_dword(regions.pattern_start_bytes),
        "step": (_MULTIPLIER * 4) & _MASK,
    }
    rows: list[tuple[int, int, list[t.Match[str]], int, str]] = []
    address, bits = _LOAD_ADDRESS, 0
    for row in _PROGRAM.splitlines():
        if row.startswith("."):
            bits = _DIRECTIVES[row]
        elif "|" in row:
            label, code, text = (column.strip() for column in row.split("|"))
            parts = list(_BYTES.finditer(code))
            next_address = address + sum(map(_part_bytes, parts))
            values.setdefault(label, address)
            rows.append((address, next_address, parts, bits, text))
            address = next_address
    values["gate_low"] = _FLAT_CODE_SELECTOR << 16 | values["tick"]
    shown = {name: hex(value) for name, value in values.items()}
    return [
        Line(
            address,
            b"".join(_part_code(part, values, end) for part in parts),
            bits,
            text.format_map(shown),
        )
        for address, end, parts, bits, text in rows
    ]


def build(
    pattern_bytes: int,
    zero_bytes: int,
    pattern_start_bytes: int = DEFAULT_PATTERN_START_BYTES,
) -> bytes:
    """A raw disk image with the program in its boot sector. Raises ValueError as `Regions` does."""
    lines = listing(Regions(pattern_bytes, zero_bytes, pattern_start_bytes))
    code = b"".join(line.code for line in lines)
    if len(code) > _CODE_LIMIT_BYTES:
        raise AssertionError(f"the program has grown to {len(code)} bytes")
    return (code.ljust(_CODE_LIMIT_BYTES, b"\0") + _BOOT_SIGNATURE).ljust(_DISK_BYTES, b"\0")


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Write the boot sector to a file."""
    parser = argparse.ArgumentParser(description="Build a guest that proves its own memory.")
    parser.add_argument("--output", required=True, help="the disk image to write")
    parser.add_argument("--pattern-mib", type=int, required=True, help="RAM filled with a pattern")
    parser.add_argument("--zero-mib", type=int, required=True, help="RAM behind it left zero")
    parser.add_argument("--pattern-start-mib", type=int, default=2, help="where the pattern starts")
    options = parser.parse_args(arguments)
    sizes = (options.pattern_mib, options.zero_mib, options.pattern_start_mib)
    try:
        disk = build(*(size * MIB_BYTES for size in sizes))
        with open(options.output, "wb") as image:
            image.write(disk)
    except (ValueError, OSError) as exc:
        parser.error(str(exc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
