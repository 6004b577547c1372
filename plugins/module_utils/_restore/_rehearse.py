# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A rehearsal: the image is loaded into a throw-away QEMU, which is ended without having run.

Image, disks and guest stay as they are, and the guest's own QEMU may live beside it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import typing as t
from dataclasses import dataclass, replace

from .._errors import Refused, VmfleetError
from .._failure import facts_of, words_of
from .._lent_image import look_at_access
from .._qemu._argv import incoming_argv
from .._qemu._guest import observe
from .._qemu._launch import LaunchedQemu, launch, wait_for_monitor
from .._qemu._migration import MigrationReport
from .._qemu._monitor import Monitor
from .._qemu._overlays import create_overlays, find_qemu_img
from .._qemu._rehearsal_argv import Rehearsal, rehearsal_argv
from .._qemu._surroundings import Surroundings
from .._uninterrupted import finished_first, uninterrupted
from ._checks import Check, look_at_rehearsal, refuse_problems
from ._failing import RestoreFailed
from ._launching import Launch, choose_launch
from ._load import Destination, RestoreSession, load
from ._plan import RestorePlan, plan_load, plan_without_qemu
from ._request import RestoreRequest

_SCRATCH = "vmfleet-rehearsal-"


@dataclass(frozen=True)
class Rehearsed:
    """``report`` is None in check mode, which starts nothing."""

    plan: RestorePlan
    report: MigrationReport | None


async def rehearse(
    session: RestoreSession, request: RestoreRequest, qmp_socket: str, *, check_mode: bool
) -> Rehearsed:
    """Try the image on this host's QEMU.

    Raises `Refused` for what a restore would refuse too or what cannot be rehearsed, and
    `RestoreFailed` with QEMU's own words when it would not load.
    """
    chosen = choose_launch(session.image, request, qmp_socket)
    if chosen is None:
        raise Refused(
            f"The image {request.path} does not tell how its QEMU was run, so that there is "
            "nothing to rehearse. Give argv."
        )
    checks = look_at_rehearsal(session.image, request, session.fd, chosen)
    refuse_problems(request.path, checks)
    scratch = tempfile.mkdtemp(prefix=_SCRATCH)
    try:
        rehearsal = _rewritten(session, chosen, scratch)
        if check_mode:
            if rehearsal.overlays:
                find_qemu_img(chosen.argv[0])
            plan = plan_without_qemu(session.image, request, launch=chosen.origin, checks=checks)
            return Rehearsed(_as_rehearsal(plan), None)
        return await _Rehearsal(session, request, chosen, rehearsal, checks, scratch).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rewritten(session: RestoreSession, chosen: Launch, scratch: str) -> Rehearsal:
    sizes: dict[str, int] = {}
    hardware = session.image.hardware
    for disk in hardware.disks if hardware is not None else ():
        if disk.chain:
            sizes[disk.node_name] = disk.chain[0].virtual_size_bytes
        sizes.update({image.filename: image.virtual_size_bytes for image in disk.chain})
    return rehearsal_argv(chosen.own_argv, scratch, sizes, chosen.directory)


def _as_rehearsal(plan: RestorePlan) -> RestorePlan:
    return replace(
        plan,
        action="rehearse",
        run_afterwards=False,
        reason="a rehearsal was asked for: nothing runs, and nothing is changed",
    )


class _Rehearsal:
    def __init__(
        self,
        session: RestoreSession,
        request: RestoreRequest,
        chosen: Launch,
        rehearsal: Rehearsal,
        checks: t.Sequence[Check],
        scratch: str,
    ) -> None:
        self._session = session
        self._request = request
        self._chosen = chosen
        self._rehearsal = rehearsal
        self._checks = checks
        self._scratch = scratch
        self._launched: LaunchedQemu | None = None

    async def run(self) -> Rehearsed:
        try:
            return await self._load()
        except BaseException as exc:
            said = self._launched.stderr_tail() if self._launched is not None else ""
            await uninterrupted(self._end())
            self._raise(exc, said)
        finally:
            await uninterrupted(self._end())

    async def _load(self) -> Rehearsed:
        session, chosen = self._session, self._chosen
        session.step = "preparing the rehearsal"
        owner = self._owner()
        await create_overlays(
            self._rehearsal.overlays, chosen.argv[0], user_id=owner[0], group_id=owner[1]
        )
        os.chown(self._scratch, *owner)
        qmp_socket = os.path.join(self._scratch, "qmp")
        words, _changes = incoming_argv(self._rehearsal.argv, qmp_socket)
        session.step = "starting the throw-away QEMU"
        self._launched = await finished_first(launch(words, self._surroundings()))
        session.actions.append(f"started a throw-away QEMU (pid {self._launched.pid})")
        monitor = await wait_for_monitor(self._launched, qmp_socket, session.deadline)
        try:
            return await self._load_over(monitor)
        finally:
            await monitor.close()

    async def _load_over(self, monitor: Monitor) -> Rehearsed:
        guest = await observe(monitor, incoming=True)
        plan = plan_load(
            self._session.image,
            guest,
            self._request,
            launch=self._chosen.origin,
            checks=self._checks,
            cpu_count=len(os.sched_getaffinity(0)),
            direct_io_proved=False if self._request.bypass_cache else None,
            stale_backends=(),
            access=look_at_access(guest.confinement, self._request.path, write=False),
        )
        if plan.negotiated is None:
            raise AssertionError("a plan for a QEMU that waits was negotiated with it")
        report = await load(self._session, Destination(monitor, guest, plan, plan.negotiated))
        return Rehearsed(_as_rehearsal(plan), report)

    def _owner(self) -> tuple[int, int]:
        recorded = self._chosen.surroundings
        if recorded is not None and os.geteuid() == 0:
            return recorded.user_id, recorded.group_id
        return os.geteuid(), os.getegid()

    def _surroundings(self) -> Surroundings | None:
        """As recorded, but with temporary files in a place that is removed afterwards."""
        recorded = self._chosen.surroundings
        if recorded is None:
            return None
        return replace(recorded, environment={**recorded.environment, "TMPDIR": self._scratch})

    async def _end(self) -> None:
        launched, self._launched = self._launched, None
        if launched is not None:
            await launched.end()
            await launched.let_go()
            self._session.actions.append("ended the throw-away QEMU")

    def _raise(self, cause: BaseException, said: str) -> t.NoReturn:
        if isinstance(cause, Refused) or not isinstance(
            cause, (VmfleetError, OSError, asyncio.CancelledError)
        ):
            raise cause
        session = self._session
        raise RestoreFailed(
            f"The rehearsal of {session.image.path} failed while {session.step}: {words_of(cause)}"
            + (f" QEMU said: {said}." if said else "")
            + f" The image is unharmed and {session.image_state}; its guest and its disks were not "
            "touched.",
            **facts_of(cause),
            step=session.step,
            guest={
                "name": session.image.name,
                "uuid": session.image.uuid,
                "state": "absent",
            },
            image={"path": session.image.path, "state": session.image_state},
            actions=list(session.actions),
            changed=False,
        ) from cause
