# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Loading an image into a waiting QEMU, and letting the guest run (DESIGN.md, Restore 4 and 5).

The vCPUs never run while the image is ready: it is marked spent first, and unmarked only when
they provably never ran.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, field

from .._errors import MigrationFailed, QmpCommandError, StoreError, VmfleetError
from .._image_record import CONTINUED, LOADED_INTO, SavedImage
from .._lent_image import give_back, lend, lend_pipe
from .._pipeline import Pipeline
from .._qemu._bookmark import RESTORE, Bookmark, StateBefore
from .._qemu._deadline import Deadline
from .._qemu._fdset import hand_over, take_back, uri
from .._qemu._guest import Guest
from .._qemu._migration import Migration, MigrationReport, wait_for_run_state
from .._qemu._monitor import Monitor
from .._qemu._negotiation import Negotiated, Step
from .._qemu._prefetcher import Prefetched
from .._saveimage._compressors import compressor_of
from .._saveimage._life import annotate, mark_ready, mark_spent
from .._saveimage._protection import replaceable
from .._saveimage._verify import Structure
from .._telling import Steps
from .._uninterrupted import finished_first, uninterrupted
from ._plan import NEVER_RAN, RestorePlan

_CONT_SECONDS = 300.0
_FD_NAME = "vmfleet"
_SETTLE_SECONDS = 10.0


@dataclass
class RestoreSession(Steps):
    """One restore under way. ``fd`` is the locked image, ``structure`` what a walk through it
    found; ``step`` names what goes on; ``rehearsal``: nothing is written into the image;
    ``label_before``: what it was labelled before QEMU got it, None where that is not known."""

    _step = "reading the image"

    image: SavedImage
    fd: int
    structure: Structure
    deadline: Deadline
    rehearsal: bool = False
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    prefetched: Prefetched | None = None
    image_state: str = ""
    may_have_run: bool = False
    load_began: bool = False
    fdset_id: int | None = None
    label_before: str | None = None
    guest_state: str = "absent"

    def __post_init__(self) -> None:
        self.image_state = self.image.state


@dataclass(frozen=True)
class Destination:
    """The QEMU that waits, and what was negotiated with it."""

    monitor: Monitor
    guest: Guest
    plan: RestorePlan
    negotiated: Negotiated


async def load(
    session: RestoreSession, into: Destination, *, stream_fd: int | None = None
) -> MigrationReport:
    """Load the stream; the vCPUs stay held. QEMU's settings are as before afterwards.

    ``stream_fd``: a file that has the stream in place of the image, at the same offsets.
    """
    try:
        return await _load(session, into, session.fd if stream_fd is None else stream_fd)
    except BaseException:
        await uninterrupted(_give_back(session, into))
        raise


async def _give_back(session: RestoreSession, into: Destination) -> None:
    """After a failed load: the image's label and QEMU's settings as before, as far as it still
    answers."""
    return_image(session, into.guest)
    with contextlib.suppress(VmfleetError):
        await apply(into.monitor, into.negotiated.put_back)
        if session.fdset_id is not None:
            await take_back(into.monitor, session.fdset_id)
        session.guest_state = str((await into.monitor.execute("query-status"))["status"])


async def apply(monitor: Monitor, steps: t.Iterable[Step]) -> None:
    """Send negotiated commands to QEMU, in order."""
    for step in steps:
        await monitor.execute(step.command, step.arguments)


async def _load(session: RestoreSession, into: Destination, stream_fd: int) -> MigrationReport:
    monitor, guest, through_pipe = into.monitor, into.guest, into.plan.through_pipe
    _lend_image(session, into, stream_fd)
    session.step = "holding the vCPUs"
    # While it waits, stop only means: do not start by yourself after the load.
    await monitor.execute("stop")
    session.step = "handing the image to QEMU"
    # Its bookmark comes first and goes last; of a pipe's image QEMU uses nothing else.
    session.fdset_id = fdset_id = await finished_first(
        hand_over(
            monitor,
            stream_fd,
            _bookmark(session, guest),
            write=False,
            direct=into.negotiated.bypass_cache and not through_pipe,
        )
    )
    session.step = "setting QEMU's migration capabilities"
    await apply(monitor, into.negotiated.apply)
    if through_pipe:
        report = await _load_from_pipe(session, into)
    else:
        report = await _migrate(session, into, uri(fdset_id, session.image.data_offset_bytes))
    session.guest_state = await wait_for_run_state(monitor, NEVER_RAN)
    session.actions.append("loaded the guest's state")
    session.step = "putting QEMU's migration settings back"
    await apply(monitor, into.negotiated.put_back)
    if not session.rehearsal:
        note_loaded(session, guest)
    session.step = "taking the image back from QEMU"
    await take_back(monitor, fdset_id)
    session.fdset_id = None
    return_image(session, guest)
    return report


def _lend_image(session: RestoreSession, into: Destination, stream_fd: int) -> None:
    session.step = "labelling the image for QEMU"
    access = into.plan.access
    lent = lend(stream_fd, session.image.path, access)
    session.warnings += lent.warnings
    if lent.label_before is not None and stream_fd == session.fd:
        session.label_before = lent.label_before
        session.actions.append(f"labelled the image {access.label} while QEMU has it")


def return_image(session: RestoreSession, guest: Guest) -> None:
    """QEMU, and one that a run which died had used, reads no more: the image is labelled again as
    it was."""
    label = guest.confinement.image_label
    session.warnings += give_back(session.fd, session.image.path, label, session.label_before)


def _bookmark(session: RestoreSession, guest: Guest) -> Bookmark:
    before = StateBefore(guest.run_state, guest.offer.capabilities, guest.offer.parameters)
    inode = os.fstat(session.fd).st_ino
    return Bookmark(RESTORE, os.path.abspath(session.image.path), inode, before)


def note_loaded(session: RestoreSession, guest: Guest) -> None:
    """Write into the image which QEMU holds its guest now."""
    session.step = "noting in the image where it was loaded"
    annotate(session.fd, session.image.path, _loaded_note(guest))


async def _load_from_pipe(session: RestoreSession, into: Destination) -> MigrationReport:
    session.step = "handing the stream to QEMU"
    compressor = compressor_of(into.plan.compressor) if into.plan.compressor else None
    pipeline = await Pipeline.from_image(
        session.fd,
        session.image.path,
        session.image.data_offset_bytes,
        compressor,
        direct=into.negotiated.bypass_cache,
    )
    try:
        lend_pipe(pipeline.qemu_fd, into.plan.access)
        await into.monitor.get_fd(pipeline.qemu_fd, _FD_NAME)
        pipeline.release()
        try:
            report = await _migrate(session, into, f"fd:{_FD_NAME}")
        except MigrationFailed:
            await pipeline.raise_failure()
            raise
        session.step = "waiting for the end of the stream"
        await pipeline.finish()
        return report
    finally:
        await pipeline.abort()


async def _migrate(session: RestoreSession, into: Destination, address: str) -> MigrationReport:
    session.step = "loading the guest's state"
    session.load_began = True
    arguments: dict[str, object] = {"uri": address}
    if into.negotiated.exit_on_error_supported:
        arguments["exit-on-error"] = False
    migration = Migration(into.monitor, into.guest.process)
    return await migration.run("migrate-incoming", arguments, session.deadline)


def _loaded_note(guest: Guest) -> dict[str, t.Any]:
    return {LOADED_INTO: guest.process.as_dict()} if guest.process is not None else {}


async def run_guest(session: RestoreSession, monitor: Monitor, guest: Guest) -> str:
    """Mark the image spent, then continue the guest; returns its run state.

    When QEMU refuses to continue, the mark is taken back and the error raised.
    """
    session.step = "marking the image spent"
    if session.image_state == "ready":
        mark_spent(session.fd, session.image.path, _loaded_note(guest))
        session.image_state = "spent"
        session.actions.append("marked the image spent")
    session.step = "continuing the guest"
    session.may_have_run = True
    try:
        await monitor.execute("cont", timeout_seconds=_CONT_SECONDS)
    except QmpCommandError:
        await _unmark_if_never_ran(session, monitor, guest)
        raise
    session.guest_state = await wait_for_run_state(monitor, ("running",), _SETTLE_SECONDS)
    session.actions.append("continued the guest")
    note_running(session, guest)
    return session.guest_state


def note_running(session: RestoreSession, guest: Guest) -> None:
    """Write into the spent image that its guest was seen to run: who stops it later wants that."""
    session.step = "noting in the image that its guest runs"
    annotate(session.fd, session.image.path, {**_loaded_note(guest), CONTINUED: True})


async def _unmark_if_never_ran(session: RestoreSession, monitor: Monitor, guest: Guest) -> None:
    status = (await monitor.execute("query-status"))["status"]
    if status not in NEVER_RAN:
        return
    session.may_have_run = False
    if session.image.state == "ready":
        mark_ready(session.fd, session.image.path, _loaded_note(guest))
        session.image_state = "ready"
        session.actions.append("marked the image ready again: the vCPUs never ran")


def remove_image(session: RestoreSession) -> None:
    """Remove the image of a guest that runs. Raises `StoreError` naming the path."""
    session.step = "removing the image"
    try:
        with replaceable(session.image.path):
            os.unlink(session.image.path)
    except OSError as exc:
        raise StoreError(f"{session.image.path} could not be removed: {exc.strerror}.") from exc
    session.image_state = "removed"
    session.actions.append(f"removed {session.image.path}")
