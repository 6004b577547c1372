# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How much of a guest's RAM the host holds: what an image of it takes at most."""

from __future__ import annotations

import re
import typing as t

_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+)")
# What a page of RAM counts as, when it is not all zero (proc(5), smaps); in KiB each.
_COUNTED = ("Rss:", "Swap:", "Shared_Hugetlb:", "Private_Hugetlb:")


class Mapping(t.NamedTuple):
    """One line of memory: from ``start`` to before ``end``, how much of it is in memory or swapped
    out, and whether it holds programs."""

    start: int
    end: int
    resident_bytes: int
    executable: bool = False


def parse_smaps(text: str) -> list[Mapping]:
    """Mappings of /proc/PID/smaps, in their order."""
    mappings: list[Mapping] = []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            start, end = int(header[1], 16), int(header[2], 16)
            mappings.append(Mapping(start, end, 0, "x" in header[3]))
        elif line.startswith(_COUNTED) and mappings:
            last = mappings[-1]
            resident = last.resident_bytes + (int(line.split()[1]) << 10)
            mappings[-1] = last._replace(resident_bytes=resident)
    return mappings


def resident_bytes(
    mappings: t.Iterable[Mapping], blocks: t.Sequence[tuple[int, int]]
) -> int | None:
    """Of RAM blocks (host address, length in bytes), as much as is in memory or swapped out.

    A mapping that a block covers in part counts whole, up to the block's length: never less than
    there is. None where a block has no mapping.
    """
    known = list(mappings)
    total = 0
    for address, length in blocks:
        inside = [one for one in known if one.start < address + length and one.end > address]
        if not inside:
            return None
        total += min(length, sum(one.resident_bytes for one in inside))
    return total


def largest_with(mappings: t.Iterable[Mapping], memory_bytes: int) -> int | None:
    """Resident bytes of the one mapping that is large enough to be a domain's RAM; None where none
    or several are, as with RAM in several nodes. TCG's translated code lies in one as large."""
    found = [one for one in mappings if one.end - one.start >= memory_bytes and not one.executable]
    return min(memory_bytes, found[0].resident_bytes) if len(found) == 1 else None


def read_mappings(pid: int) -> list[Mapping]:
    """Of a process; empty where nobody may look."""
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
            return parse_smaps(smaps.read())
    except OSError:
        return []
