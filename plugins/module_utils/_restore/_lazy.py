# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A guest whose RAM is mapped from its image: proving that, protecting the image, reading ahead.

The image is the guest's RAM until every page was overwritten. So no vCPU runs before the mapping
was proved, and a spent image that a guest runs from is kept from being written or truncated.
"""

from __future__ import annotations

import os
import random
import typing as t

from .._errors import Refused, VmfleetError
from .._qemu._guest import Guest
from .._qemu._mapped_argv import ImageBlock
from .._qemu._mappings import Mapping, mappings_of, maps_privately
from .._qemu._migration import MigrationReport
from .._qemu._prefetcher import prefetch
from .._saveimage._bitmap import read_bitmap
from .._saveimage._companion import build_companion
from .._saveimage._page_sample import SampledPage, sample_pages
from .._saveimage._prefetch_order import prefetch_order
from .._saveimage._protection import MODE, protect, protection
from .._saveimage._stream import RamBlock
from ._load import Destination, RestoreSession, load

_SAMPLED_PAGES = 32  # of either kind, in each block
_NO_PREFETCH = "none"
_FULL_PREFETCH = "full"


class ProofFailed(VmfleetError):
    """The memory of the new QEMU is not what the image says."""


async def load_around(
    session: RestoreSession, into: Destination, mapped: t.Sequence[ImageBlock]
) -> MigrationReport:
    """Load what is not mapped, then prove what is. Raises `ProofFailed`."""
    session.step = "making the stream without the mapped RAM"
    head = session.structure.head
    names = {block.name for block in mapped}
    companion = build_companion(session.fd, head.ram_blocks, names, session.image.data_offset_bytes)
    try:
        report = await load(session, into, stream_fd=companion)
    finally:
        os.close(companion)
    prove(session, into.guest, mapped)
    return report


def blocks_mapped_by(session: RestoreSession, guest: Guest) -> tuple[ImageBlock, ...]:
    """RAM blocks that the guest's QEMU has mapped from the image, at the place where their pages
    are; none where that cannot be seen, for such a mapping was never proved either."""
    if guest.process is None:
        return ()
    try:
        mappings = mappings_of(guest.process.pid, os.fstat(session.fd))
    except OSError:
        return ()
    return tuple(block for block in session.image.page_blocks if _is_mapped(block, guest, mappings))


def _is_mapped(block: ImageBlock, guest: Guest, mappings: t.Sequence[Mapping]) -> bool:
    address = _address_of(block, guest)
    return address is not None and maps_privately(
        mappings, address, block.length_bytes, block.pages_offset_bytes
    )


def _address_of(block: ImageBlock, guest: Guest) -> int | None:
    for live in guest.ram_blocks:
        if live.name == block.name:
            return live.host_address
    return None


def prove(session: RestoreSession, guest: Guest, mapped: t.Sequence[ImageBlock]) -> None:
    """Compare the new guest's memory with the image, before its vCPUs run.

    Each of ``mapped`` must be a private mapping of this very image at its own offset, and pages of
    it, zero ones too, must read as the image has them. Raises `ProofFailed`.
    """
    session.step = "proving that the guest's memory is the image"
    if guest.process is None:
        raise Refused("The QEMU cannot be seen from here, so that its memory cannot be proved.")
    pid = guest.process.pid
    try:
        found = {block.name for block in blocks_mapped_by(session, guest)}
        for block in mapped:
            if block.name not in found:
                raise ProofFailed(
                    f"RAM block {block.name} of the QEMU process {pid} is not seen to be a private "
                    f"mapping of {session.image.path} from offset {block.pages_offset_bytes} on. "
                    "This QEMU does something else with its memory than it was told, or /proc does "
                    "not show it to this user. Set load to eager."
                )
        pages = sum(_prove_block(session, guest, block) for block in mapped)
    except OSError as exc:
        raise ProofFailed(
            f"The memory of the QEMU process {pid} cannot be read: {exc.strerror}. Load eagerly, "
            "or run this as root."
        ) from exc
    session.actions.append(
        f"proved {pages} pages of {', '.join(block.name for block in mapped)} against the image"
    )


def _prove_block(session: RestoreSession, guest: Guest, mapped: ImageBlock) -> int:
    block = next(one for one in session.structure.head.ram_blocks if one.name == mapped.name)
    address = _address_of(mapped, guest)
    if address is None or guest.process is None:
        raise AssertionError("the block was found in this QEMU a moment ago")
    order = session.structure.prefix.header.byte_order
    bitmap = read_bitmap(session.fd, session.image.path, block, order)
    sample = sample_pages(bitmap, block.page_count, random.Random(), _SAMPLED_PAGES)
    memory = os.open(f"/proc/{guest.process.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        different = _first_different(session.fd, memory, block, address, sample)
    finally:
        os.close(memory)
    if different is not None:
        page_bytes = mapped.page_size_bytes
        raise ProofFailed(
            f"Page {different.number} of RAM block {block.name} is not in the guest as it is in "
            f"the image, at offset {mapped.pages_offset_bytes + different.number * page_bytes}: "
            f"it should be {'what the image holds' if different.present else 'zero'}. "
            "This QEMU changed mapped memory while it loaded; set load to eager."
        )
    return len(sample)


def _first_different(
    image_fd: int,
    memory_fd: int,
    block: RamBlock,
    address: int,
    sample: t.Sequence[SampledPage],
) -> SampledPage | None:
    size, start = block.page_size_bytes or 0, block.pages_offset_bytes or 0
    present = [page.number for page in sample if page.present]
    for number in present:  # asked for together, so that a disk serves them together
        os.posix_fadvise(image_fd, start + number * size, size, os.POSIX_FADV_WILLNEED)
    for page in sample:
        at = page.number * size
        wanted = os.pread(image_fd, size, start + at) if page.present else bytes(size)
        if os.pread(memory_fd, size, address + at) != wanted:
            return page
    return None


def keep_from_changing(session: RestoreSession) -> None:
    """Make the spent image read-only: from now on it is the RAM of a guest that runs."""
    if protection(session.fd) is not None:
        return
    session.step = "protecting the image that the guest runs from"
    try:
        way = protect(session.fd, session.image.path)
    except VmfleetError as exc:
        session.warnings.append(f"{exc.message} {_UNPROTECTED}")
        return
    session.actions.append(
        f"made the image read-only ({way}) for as long as the guest runs from it"
    )
    if way == MODE:
        session.warnings.append(
            f"The image {session.image.path} could be made read-only by its permission bits "
            f"alone. {_UNPROTECTED}"
        )


_UNPROTECTED = (
    "Whoever writes into the image or truncates it damages or ends the guest. With remove_image it "
    "has no name by which anybody could."
)


async def read_ahead(
    session: RestoreSession, guest: Guest, mapped: t.Sequence[ImageBlock], mode: str
) -> None:
    """Fill the page cache with the mapped pages, as asked."""
    if mode == _NO_PREFETCH or guest.process is None:
        return
    session.step = "reading the image ahead of the guest"
    names = {block.name for block in mapped}
    blocks = [block for block in session.structure.head.ram_blocks if block.name in names]
    ranges = prefetch_order(session.fd, blocks)
    try:
        found = await prefetch(
            session.fd,
            ranges,
            guest.process,
            session.deadline,
            waited_for=mode == _FULL_PREFETCH,
        )
    except OSError as exc:
        session.warnings.append(f"The image is not read ahead of the guest: {exc.strerror}.")
        return
    session.prefetched = found
    session.actions.append(
        f"read {found.read_bytes} of {found.total_bytes} bytes ahead of the guest: {found.ended}"
        if found.waited_for
        else f"began to read {found.total_bytes} bytes ahead of the guest"
    )
