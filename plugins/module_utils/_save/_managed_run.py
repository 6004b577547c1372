# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a managed save: libvirt writes where it likes, and restores the domain from
there when it is started the next time, by whomever.

Such a domain's autostart is no danger, as it restores the guest in place of booting it afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field, replace

from .._errors import ImageInvalid, LibvirtError, Refused, VmfleetError
from .._failure import words_of
from .._image_record import SavedImage, describe
from .._libvirt._connection import Connection
from .._libvirt._domain import LOST, Domain, whereabouts
from .._libvirt._managed import managed_save_path
from .._libvirt._qemu_conf import read_knobs
from .._libvirt._traps import blockers_of, offered_by, remove_leaked_fdsets, set_direct_io
from .._qemu._deadline import Deadline
from .._saveimage._lock import lock_image, store_error
from .._saveimage._verify import Structure
from .._telling import SAVING, Steps, about
from .._uninterrupted import in_thread, uninterrupted
from ._domain_plan import check_domain
from ._domain_report import CRASHED, failed, failed_afterwards, outcome, verify_written
from ._domain_request import ManagedSaveRequest
from ._domain_settled import settled
from ._managed_plan import kind_of, plan_managed_save
from ._outcome import SaveOutcome
from ._plan import SavePlan
from ._planning import free_bytes


async def save_managed(request: ManagedSaveRequest, *, check_mode: bool) -> SaveOutcome:
    """Have libvirt save the domain, or find that it did before.

    Raises `Refused` before anything was touched and `SaveFailed` afterwards; `LibvirtError` where
    the daemon does not answer.
    """
    began = time.monotonic()
    connection = await Connection.open(request.uri)
    try:
        with about(SAVING, request.domain, None, silent=check_mode):
            return await _ManagedSave(request, connection, began, check_mode).execute()
    finally:
        await uninterrupted(connection.close())


@dataclass
class _ManagedSave(Steps):
    _step = "looking at the domain"

    request: ManagedSaveRequest
    connection: Connection
    began: float
    check_mode: bool
    actions: list[str] = field(default_factory=list)

    async def execute(self) -> SaveOutcome:
        deadline = Deadline(self.request.timeout_seconds)
        domain = await self.connection.find(self.request.domain)
        if domain is None:
            raise Refused(
                f"There is no domain {self.request.domain} at {self.request.uri}.",
                guest={"state": "absent"},
            )
        path = managed_save_path(self.request.uri, domain.name)
        if not domain.active:
            return self._saved_before(domain, path)
        check_domain(domain)  # a job would keep QEMU from being asked
        check_domain(domain, await blockers_of(self.connection, domain.uuid))
        _mapped_ram, direct_io = await offered_by(self.connection, domain.uuid)
        plan = plan_managed_save(
            self.request,
            domain,
            read_knobs(self.request.qemu_conf),
            path,
            direct_io=direct_io,
            free_bytes=free_bytes(path),
        )
        if self.check_mode:
            return outcome(plan, domain, None, None, began=self.began, actions=())
        try:
            self.step = "setting direct-io in QEMU"
            # libvirt switches it on by itself, and never off (T2).
            if await set_direct_io(self.connection, domain.uuid, False):
                self.actions.append("set direct-io off in QEMU")
            self.step = "libvirt saved it"
            await self._write(domain, plan, deadline)
        except BaseException as exc:
            await uninterrupted(self._undo(domain, exc))
        written, structure = await uninterrupted(self._finish(domain, path))
        plan = replace(plan, kind=kind_of(written, plan.kind))
        return outcome(plan, domain, None, structure, began=self.began, actions=self.actions)

    def _saved_before(self, domain: Domain, path: str) -> SaveOutcome:
        facts = {"name": domain.name, "uuid": domain.uuid, "state": domain.state}
        if not domain.has_managed_save:
            raise Refused(
                f"The domain {domain.name} does not run, and libvirt holds no managed save of it.",
                guest=facts,
            )
        fd = lock_image(path, write=False)
        try:
            image = _whole(fd, path, domain)
            # A run that died after libvirt was done did not see to it (T6).
            if not self.check_mode:
                _flush(fd, path)
        finally:
            os.close(fd)
        return SaveOutcome(
            changed=False,
            message=f"{domain.name} is held in a managed save of libvirt's already.",
            reason="libvirt holds a managed save of it, and no QEMU holds the domain",
            name=domain.name,
            uuid=domain.uuid,
            pid=None,
            state_before="stopped",
            state_after="stopped",
            image_before=image,
            image_state="ready",
        )

    async def _write(self, domain: Domain, plan: SavePlan, deadline: Deadline) -> None:
        try:
            await self.connection.managed_save(
                domain.uuid,
                bypass_cache=plan.negotiated.bypass_cache,
                timeout_seconds=deadline.remaining_seconds(),
            )
        except LibvirtError as exc:
            deadline.check(f"libvirt saved the domain ({exc.description})")
            raise
        self.actions.append("saved the domain into libvirt's own file, and let it end its QEMU")

    async def _finish(self, domain: Domain, path: str) -> tuple[SavedImage, Structure]:
        """The guest is gone: what is here is all there is of it."""
        try:
            self.step = "flushing the image"
            fd = lock_image(path, write=False)
            try:
                await in_thread(lambda: _flush(fd, path))  # libvirt does not (T6)
                self.step = "verifying the image"
                image = _whole(fd, path, domain)
                return image, await verify_written(fd, path, image.image_format)
            finally:
                os.close(fd)
        except (VmfleetError, OSError) as exc:
            raise failed_afterwards(domain, self.step, exc, self.actions, path) from exc

    async def _undo(self, domain: Domain, cause: BaseException) -> None:
        """Everything as before, and `SaveFailed`; returns where libvirt saved it all the same."""
        now, known = await settled(self.connection, domain.uuid)
        if known and now is not None and not now.active and now.has_managed_save:
            self.actions.append(f"libvirt had saved it when this came up: {words_of(cause)}")
            return
        if not known:
            state, advice = (
                "unknown",
                (
                    "Whether libvirt goes on saving it is not known: run this again when the "
                    "daemon answers."
                ),
            )
        elif now is not None and now.active:
            state, advice = now.state, f"The domain is {now.state}, as libvirt left it."
            with contextlib.suppress(VmfleetError):
                # What libvirt switched on for this save would end the guest with the next (T2).
                await set_direct_io(self.connection, domain.uuid, False)
            with contextlib.suppress(VmfleetError):
                if await remove_leaked_fdsets(self.connection, domain.uuid):
                    self.actions.append("took back the descriptors that libvirt left in QEMU")
        else:
            lost = now is None or now.off_because in LOST
            state, advice = (CRASHED if lost or now is None else now.state), whereabouts(now)
        if isinstance(cause, Refused) or not isinstance(
            cause, (VmfleetError, OSError, asyncio.CancelledError)
        ):
            raise cause
        raise failed(domain, self.step, cause, state, self.actions, advice) from cause


def _whole(fd: int, path: str, domain: Domain) -> SavedImage:
    """Raises `ImageInvalid` for anything but a complete image of the domain."""
    image = describe(fd, path)
    if (image.state, image.uuid) != ("ready", domain.uuid):
        raise ImageInvalid(path, 0, f"it is no whole image of {domain.name}")
    return image


def _flush(fd: int, path: str) -> None:
    """The image and its name. Raises `StoreError`."""
    try:
        os.fsync(fd)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise store_error("Flushing", path, exc) from exc
