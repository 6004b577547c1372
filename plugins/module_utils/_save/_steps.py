# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The steps of a save, in the order that is the contract (DESIGN.md, Save 3 to 7).

Nothing is told to QEMU before the image's beginning is durable, QEMU keeps the RAM until the
image is verified, and the complete magic comes last.
"""

from __future__ import annotations

import os
import threading
import time

from .._errors import ImageInvalid, MigrationFailed, QmpCommandError, VmfleetError
from .._lent_image import give_back, lend, lend_pipe
from .._pipeline import Pipeline, decode_and_verify
from .._qemu._block_graph import BlockNode, parse_block_nodes
from .._qemu._description import Hardware, query_hardware
from .._qemu._fdset import hand_over, uri
from .._qemu._fence import take_fingerprints
from .._qemu._migration import Migration, MigrationReport, wait_for_run_state
from .._qemu._monitor import MonitorLost
from .._qemu._ram_blocks import compare
from .._saveimage._compressors import compressor_of
from .._saveimage._header import MAGIC_PARTIAL
from .._saveimage._life import LifeState, life_block
from .._saveimage._prefix import record_in, relabelled, with_record
from .._saveimage._verify import Structure, verify_structure
from .._uninterrupted import finished_first
from ._content import RamRange, first_difference
from ._counts import missing_pages
from ._hold import STOP_SECONDS
from ._plan import MAPPED_RAM
from ._record import completed_record
from ._session import SaveSession

CONTENT = "content"
FD_NAME = "vmfleet"
STRUCTURE = "structure"


class GuestChanged(VmfleetError):
    """The guest is no longer what the plan was made for."""


def begin_image(session: SaveSession) -> None:
    """From here on another run can tell from the file what to undo."""
    session.step = "writing the beginning of the image"
    session.image.write_prefix(session.beginning)
    session.actions.append(f"created {session.image.path}")


def lend_image(session: SaveSession) -> None:
    """Let a confined QEMU use the image. Raises `Refused`; nothing was told to QEMU then."""
    session.step = "labelling the image for QEMU"
    access = session.plan.access
    lent = lend(session.image.fd, session.image.path, access)
    session.warnings += lent.warnings
    if lent.label_before is not None:
        session.label_before = lent.label_before
        session.actions.append(f"labelled the image {access.label} while QEMU has it")


def return_image(session: SaveSession) -> None:
    """QEMU has written all that it will: the image is labelled again as it was."""
    image, label = session.image, session.guest.confinement.image_label
    session.warnings += give_back(image.fd, image.path, label, session.label_before)


async def prepare_qemu(session: SaveSession) -> None:
    """The fdset, capabilities and parameters, while the vCPUs still run."""
    session.step = "handing the image to QEMU"
    through_pipe = session.plan.through_pipe
    # With its bookmark it comes first; interrupted within, it would leave a set whose number
    # nobody knows. Of a pipe's image QEMU uses nothing but the bookmark.
    session.fdset_id = await finished_first(
        hand_over(
            session.monitor,
            session.image.fd,
            session.bookmark,
            write=not through_pipe,
            direct=session.plan.negotiated.bypass_cache and not through_pipe,
        )
    )
    session.step = "setting QEMU's migration capabilities"
    session.negotiated = True
    await session.apply(session.plan.negotiated.apply)
    session.actions.append("set migration capabilities and parameters")
    if through_pipe:
        session.step = "handing QEMU its pipe"
        await _open_pipeline(session)
    session.deadline.check(session.step)


async def _open_pipeline(session: SaveSession) -> None:
    session.pipeline = await Pipeline.into_image(
        session.image.fd,
        session.image.path,
        session.data_offset_bytes,
        compressor_of(session.plan.kind.image_format),
        direct=session.plan.negotiated.bypass_cache,
    )
    lend_pipe(session.pipeline.qemu_fd, session.plan.access)
    session.fd_name = FD_NAME
    await session.monitor.get_fd(session.pipeline.qemu_fd, FD_NAME)
    session.pipeline.release()


async def write_guest(session: SaveSession) -> MigrationReport:
    """Stop the vCPUs and let QEMU write; returns when it is in postmigrate."""
    session.step = "stopping the vCPUs"
    session.stopped_at = time.monotonic()
    if session.plan.was_running:
        await session.monitor.execute("stop", timeout_seconds=STOP_SECONDS)
        session.actions.append("stopped the vCPUs")
    await _check_again(session)
    session.step = "writing the guest's state"
    migration = Migration(session.monitor, session.guest.process)
    session.migrating = True
    try:
        report = await migration.run("migrate", {"uri": _address(session)}, session.deadline)
    except QmpCommandError:
        session.migrating = False
        raise
    except MigrationFailed:
        # A full disk or a compressor that died is a broken pipe to QEMU.
        if session.pipeline is not None:
            await session.pipeline.raise_failure()
        raise
    if session.pipeline is not None:
        session.step = "waiting for the end of the stream"
        await session.in_time(session.pipeline.finish())
    await wait_for_run_state(session.monitor, ("postmigrate",))
    session.actions.append("wrote the guest's state into the image")
    return report


async def _check_again(session: SaveSession) -> None:
    """Between the plan and the stop the guest may have shut down, or somebody may have continued
    it or begun a block job."""
    session.step = "looking at the stopped guest"
    expected = "paused" if session.plan.was_running else session.plan.run_state_before
    state = (await session.monitor.execute("query-status"))["status"]
    if state != expected:
        raise GuestChanged(f"The guest went into run state {state} while it was being prepared.")
    if await session.monitor.execute("query-block-jobs"):
        raise GuestChanged("A block job was started while the guest was being prepared.")


def _address(session: SaveSession) -> str:
    if session.fdset_id is None or session.pipeline is not None:
        return f"fd:{session.fd_name}"
    return uri(session.fdset_id, session.data_offset_bytes)


async def note_disks(session: SaveSession) -> None:
    """The record gets what shows only now: the guest's devices at the very end, and its disks,
    flushed and let go of."""
    session.step = "noting the state of the disks"
    process, surroundings = session.guest.process, session.guest.surroundings
    pid = process.pid if process is not None else None
    directory = surroundings.cwd if surroundings is not None else None
    nodes, hardware = await _guest_at_the_end(session, directory)
    disks = await session.in_thread(lambda: take_fingerprints(nodes, pid, directory))
    record = record_in(session.beginning)
    if record is None:
        raise ImageInvalid(session.image.path, 0, "its record is gone")
    session.beginning = with_record(session.beginning, completed_record(record, hardware, disks))


async def _guest_at_the_end(
    session: SaveSession, directory: str | None
) -> tuple[tuple[BlockNode, ...], Hardware | None]:
    """As it is; as it was before the stop where QEMU died after it had written everything."""
    monitor, guest = session.monitor, session.guest
    try:
        nodes = parse_block_nodes(await monitor.execute("query-named-block-nodes", {"flat": True}))
        cpus = await monitor.execute("query-cpus-fast")
        return nodes, await query_hardware(monitor, cpus, directory)
    except MonitorLost:
        return guest.block_nodes, guest.hardware


async def verify_image(session: SaveSession, report: MigrationReport) -> tuple[Structure, str]:
    """Flush and walk the image while QEMU still holds the RAM; returns what was verified."""
    image = session.image
    session.step = "flushing the image to its store"
    await session.in_thread(image.sync)
    session.step = "verifying the image"
    if os.pread(image.fd, len(MAGIC_PARTIAL), 0) != MAGIC_PARTIAL:
        # QEMU 8.2.0 to 8.2.5 and 9.0.0 to 9.0.1 cut it off (spec/qemu.md 4).
        await session.in_thread(lambda: image.write_prefix(session.beginning))
    compressor = compressor_of(session.plan.kind.image_format)
    if compressor is None:
        structure = await session.in_thread(lambda: verify_structure(image.fd, image.path))
    else:
        structure = await session.in_time(decode_and_verify(image.fd, image.path, compressor))
    blocks = [(block.name, block.used_length_bytes) for block in structure.head.ram_blocks]
    in_image = {name for name, _length in blocks}
    live = [block for block in session.guest.ram_blocks if block.name in in_image]
    differences = compare(blocks, live, MAPPED_RAM)
    if differences:
        raise ImageInvalid(image.path, session.data_offset_bytes, "; ".join(differences))
    missing = missing_pages(structure, report)
    if missing is not None:
        raise ImageInvalid(image.path, session.data_offset_bytes, missing)
    verified = STRUCTURE
    if session.plan.verify == CONTENT:
        session.step = "comparing the image with the guest's RAM"
        verified = await compare_content(session, structure)
    session.actions.append(f"verified the image ({verified})")
    return structure, verified


async def compare_content(session: SaveSession, structure: Structure) -> str:
    """Compare every page with the RAM that QEMU holds; returns what that verified, the structure
    alone where it cannot be done. Raises `ImageInvalid` naming the first difference."""
    process = session.guest.process
    if process is None or session.plan.kind.layout != MAPPED_RAM:
        return STRUCTURE
    pid, fd = process.pid, session.image.fd
    addresses = {block.name: block.host_address for block in session.guest.ram_blocks}
    ranges = [
        RamRange(b.name, b.pages_offset_bytes, addresses[b.name], b.used_length_bytes)
        for b in structure.head.ram_blocks
        if b.pages_offset_bytes is not None
    ]
    stop = threading.Event()
    try:
        difference = await session.in_thread(lambda: first_difference(fd, pid, ranges, stop))
    except OSError:
        return STRUCTURE
    finally:
        stop.set()
    if difference is not None:
        raise ImageInvalid(
            session.image.path,
            difference.file_offset_bytes,
            f"the byte at offset {difference.block_offset_bytes} of RAM block "
            f"{difference.ram_block} differs from the guest's RAM",
        )
    return CONTENT


def publish_image(session: SaveSession) -> None:
    """The last step that can be undone: from the complete magic on, the image could be restored."""
    session.step = "publishing the image"
    return_image(session)
    session.image.publish(relabelled(session.beginning, life_block(LifeState.READY, {})))
    session.actions.append(f"published {session.image.target}")
