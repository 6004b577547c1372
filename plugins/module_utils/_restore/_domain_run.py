# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a restore through libvirt: one image becomes one domain again (DESIGN.md, Through
libvirt).

Always paused first: libvirt would let the vCPUs run by itself, while the image still is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import typing as t
from dataclasses import dataclass, field, replace

from .._domain_instance import was_loaded_from
from .._errors import LibvirtError, Refused, StoreError, VmfleetError
from .._failure import facts_of, words_of
from .._image_record import CONTINUED, LOADING, SavedImage, describe
from .._libvirt._autostart import is_held, release_autostart
from .._libvirt._connection import SPARSE_VERSION, Connection
from .._libvirt._domain import Domain
from .._libvirt._virsh import can_say_channels
from .._libvirt_transfer import left_to_libvirt
from .._qemu._deadline import Deadline
from .._qemu._negotiation import MAPPED_RAM, Negotiated
from .._saveimage._life import annotate, mark_ready, mark_spent
from .._saveimage._prefix import read_prefix
from .._saveimage._protection import replaceable
from .._saveimage._publish import refuse_unfinished
from .._saveimage._relabel import as_sparse, as_version_3
from .._saveimage._verify import Structure, verify_structure
from .._store_speed import for_restoring, known_speed
from .._telling import RESTORING, Steps, about
from .._uninterrupted import in_thread, uninterrupted
from ._checks import look_at_image, refuse_problems
from ._direct_io import switch_direct_io_off
from ._domain_description import check_described
from ._domain_plan import Step, check_owner, decide
from ._domain_request import DomainRestoreRequest
from ._failing import RestoreFailed
from ._image_file import open_image
from ._outcome import RestoreOutcome
from ._plan import RestorePlan, check_image, runs_afterwards
from ._request import RestoreRequest

# With the parameter direct-io, without which libvirt cannot read a sparse image past the cache.
_DIRECT_IO_QEMU = 9_001_000


async def restore_domain(request: DomainRestoreRequest, *, check_mode: bool) -> RestoreOutcome:
    """Bring the domain of ``request.path`` back, or find that it was brought back before.

    Raises `Refused` before anything was loaded and `RestoreFailed` afterwards.
    """
    refuse_unfinished(request.path)
    began = time.monotonic()
    connection = await Connection.open(request.uri)
    try:
        fd = open_image(request.path, write=True, check_mode=check_mode)
        try:
            image = describe(fd, request.path)
            check_owner(image, request)
            check_described(read_prefix(fd, request.path).xml, image)
            plain = RestoreRequest(
                path=request.path,
                parallel_channels=request.parallel_channels,
                allow=request.allow,
            )
            if image.state == "partial":
                check_image(image, plain)
            run = _Restore(
                request,
                plain,
                connection,
                fd,
                image,
                await in_thread(lambda: verify_structure(fd, request.path)),
                began,
                check_mode,
                Deadline(request.timeout_seconds),
            )
            with about(RESTORING, image.name or request.path, request.path, silent=check_mode):
                return await run.execute()
        finally:
            os.close(fd)
    finally:
        await uninterrupted(connection.close())


@dataclass
class _Restore(Steps):
    _step = "looking at the domain"

    request: DomainRestoreRequest
    plain: RestoreRequest
    connection: Connection
    fd: int
    image: SavedImage
    structure: Structure
    began: float
    check_mode: bool
    deadline: Deadline
    direct_io: bool = True
    image_state: str = ""
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def uuid(self) -> str:
        return self.image.uuid or ""  # check_owner saw to it

    async def execute(self) -> RestoreOutcome:
        self.image_state = self.image.state
        wanted = runs_afterwards(self.request.run_state, self.image)
        domain = await self.connection.find(self.uuid)
        step, reason = decide(
            self.image,
            domain,
            loaded_by_us=await was_loaded_from(self.connection, self.fd, self.image, domain),
            run_afterwards=wanted,
        )
        found = domain.state if domain is not None and domain.active else "absent"
        if step is Step.LOAD:
            size, may = self.structure.allocated_bytes, not self.check_mode
            measured = await known_speed(
                self.request, for_restoring, self.connection.hypervisor, size, may_measure=may
            )
            self.request = replace(self.request, measured=measured)
            if measured is not None:
                self.direct_io = await self.connection.qemu_version() >= _DIRECT_IO_QEMU
        plan = self._plan(step, reason, wanted)
        if step is Step.NOTHING:
            return await uninterrupted(self._nothing_left(plan, found))
        if self.check_mode:
            if wanted:
                self.image_state = "removed" if self.request.remove_image else "spent"
            return self._outcome(plan, found, "running" if wanted else "paused", changed=True)
        if step is Step.LOAD:
            await self._load(plan)
        # No cancellation from here on: the guest is there, and must not stay half restored.
        await uninterrupted(self._loaded(wanted))
        return self._outcome(plan, found, "running" if wanted else "paused", changed=True)

    async def _nothing_left(self, plan: RestorePlan, found: str) -> RestoreOutcome:
        """Unchanged, unless a run died before it switched autostart on."""
        late = found == "running" and await is_held(self.connection, self.uuid)
        if found == "running" and not self.check_mode:
            if late:
                late = await self._switch_autostart_on()
            if self.image.state == "spent" and not self.image.continued:
                with contextlib.suppress(StoreError):
                    annotate(self.fd, self.image.path, {CONTINUED: True})
        outcome = self._outcome(plan, found, found, changed=late)
        if late:
            verb = "Would switch" if self.check_mode else "Switched"
            message = f"{verb} autostart of {self.image.name} on, which runs already."
            outcome = replace(outcome, message=message)
        return outcome

    def _plan(self, step: Step, reason: str, wanted: bool) -> RestorePlan:
        warnings: tuple[str, ...] = ()
        checks = []
        if step is Step.LOAD:
            warnings = check_image(self.image, self.plain)
            checks = look_at_image(self.image, self.plain, None)
            refuse_problems(self.image.path, checks)
        recent = self.connection.version >= SPARSE_VERSION
        if self.image.layout == MAPPED_RAM:
            self.connection.require(SPARSE_VERSION, "Restoring a sparse image through libvirt")
        return RestorePlan(
            action=step.value,
            path=self.image.path,
            layout=self.image.layout,
            compressor=self.image.compressor,
            run_afterwards=wanted,
            launch="libvirt" if step is Step.LOAD else None,
            negotiated=left_to_libvirt(
                self.image.layout,
                channels_asked=self.request.parallel_channels,
                bypass_cache_asked=self.request.bypass_cache,
                cpu_count=len(os.sched_getaffinity(0)),
                may_choose=recent and can_say_channels(),
                measured=self.request.measured,
                direct_io=self.direct_io,
            ),
            reason=reason,
            checks=tuple(checks),
            warnings=(*warnings, *(word for check in checks for word in check.warnings)),
        )

    async def _load(self, plan: RestorePlan) -> None:
        negotiated = plan.negotiated
        if negotiated is None:
            raise AssertionError("a restore through libvirt is planned with its channels")
        self.step = "libvirt restored it"
        try:
            if self.image.state == "spent":
                # libvirt reads none that is not complete; a crash leaves it ready, as was allowed.
                mark_ready(self.fd, self.image.path, {LOADING: True})
            else:
                annotate(self.fd, self.image.path, {LOADING: True})
            if self.image.version == 3:
                as_sparse(self.fd, self.image.path)
                self.actions.append("presented the image to libvirt as version 2, sparse")
            await self._restore_paused(negotiated)
        except BaseException as exc:
            await uninterrupted(self._undo(exc))
        self.actions.append("let libvirt load the image, vCPUs held")
        if self.image.version == 3:
            with contextlib.suppress(StoreError):  # either label is right
                as_version_3(self.fd, self.image.path)

    async def _loaded(self, wanted: bool) -> None:
        # Whoever loaded it: this run, or one that died.
        self.warnings += await switch_direct_io_off(self.connection, self.uuid, self.actions)
        if wanted:
            await self._run()
        elif self.image.state == "spent":
            # It was allowed to be loaded once more, and is not to be restored by anybody else.
            self.step = "marking the image spent again"
            try:
                mark_spent(self.fd, self.image.path, {LOADING: True})
            except StoreError as exc:
                await self._hold(exc)

    async def _restore_paused(self, negotiated: Negotiated) -> None:
        try:
            await self.connection.restore_paused(
                self.uuid,
                self.image.path,
                channels=negotiated.channels,
                bypass_cache=negotiated.bypass_cache,
                timeout_seconds=self.deadline.remaining_seconds(),
            )
        except LibvirtError as exc:
            self.deadline.check(f"libvirt restored the domain ({exc.description})")
            raise

    async def _undo(self, cause: BaseException) -> t.NoReturn:
        """libvirt ends the QEMU of a load that failed. Where it has, the image is as it was; where
        nobody can tell, or the domain is there, the next run shall find what it needs to know."""
        state = "unknown"
        with contextlib.suppress(LibvirtError):
            domain = await self.connection.find(self.uuid)
            state = domain.state if domain is not None and domain.active else "absent"
        with contextlib.suppress(VmfleetError):
            if state == "absent" and self.image.version == 3:
                as_version_3(self.fd, self.image.path)
            if self.image.state == "spent":
                mark_spent(self.fd, self.image.path, {LOADING: state != "absent"})
            elif state == "absent":
                annotate(self.fd, self.image.path, {LOADING: False})
        self._raise(cause, state)

    async def _run(self) -> None:
        """The mark first: from here on nobody may restore the image again."""
        try:
            self.step = "marking the image spent"
            mark_spent(self.fd, self.image.path, {LOADING: True})
            self.image_state = "spent"
            self.actions.append("marked the image spent")
            self.step = "resuming the domain"
            await self.connection.resume(self.uuid)
        except (VmfleetError, OSError) as exc:
            await self._hold(exc)
        self.actions.append("resumed the domain")
        await self._switch_autostart_on()
        with contextlib.suppress(StoreError):  # for who reads it later; the guest runs
            annotate(self.fd, self.image.path, {CONTINUED: True})
        if self.request.remove_image:
            self._remove()

    async def _switch_autostart_on(self) -> bool:
        """True when it was off."""
        try:
            switched = await release_autostart(self.connection, self.uuid)
            if switched:
                self.actions.append("switched autostart on again")
            return switched
        except LibvirtError as exc:
            self.warnings.append(
                f"The domain runs, but its autostart could not be switched on again: {exc.message} "
                f"Do it by hand: virsh autostart {self.image.name}."
            )
            return False

    async def _hold(self, cause: Exception) -> t.NoReturn:
        """The vCPUs may not run on an image that is not marked: the domain stays paused, and the
        next run goes on here."""
        domain: Domain | None = None
        with contextlib.suppress(LibvirtError):
            domain = await self.connection.find(self.uuid)
        self._raise(cause, domain.state if domain is not None else "unknown")

    def _remove(self) -> None:
        self.step = "removing the image"
        try:
            with replaceable(self.image.path):
                os.unlink(self.image.path)
        except OSError as exc:
            self._raise(exc, "running")
        self.image_state = "removed"
        self.actions.append(f"removed {self.image.path}")

    def _raise(self, cause: BaseException, state: str) -> t.NoReturn:
        if isinstance(cause, Refused) or not isinstance(
            cause, (VmfleetError, OSError, asyncio.CancelledError)
        ):
            raise cause
        with contextlib.suppress(VmfleetError):
            self.image_state = describe(self.fd, self.image.path).state
        advice = {
            "absent": "No QEMU holds the domain.",
            "running": "The domain runs.",
            "paused": "The domain is paused, its vCPUs held: run this again to go on.",
        }.get(state, f"Look at the domain with virsh domstate {self.image.name}.")
        raise RestoreFailed(
            f"Restoring {self.image.path} failed while {self.step}: {words_of(cause)} The image is "
            f"{self.image_state}. {advice}",
            **facts_of(cause),
            step=self.step,
            guest={"name": self.image.name, "uuid": self.image.uuid, "state": state},
            image={"path": self.image.path, "state": self.image_state},
            actions=list(self.actions),
            changed=state not in ("absent", "unknown"),
        ) from cause

    def _outcome(
        self, plan: RestorePlan, found: str, state: str, *, changed: bool
    ) -> RestoreOutcome:
        verb = "Would restore" if self.check_mode else "Restored"
        return RestoreOutcome(
            changed=changed,
            message=f"{verb} {self.image.name} from {self.image.path}."
            if changed
            else f"{self.image.name} was restored from {self.image.path} before.",
            plan=replace(plan, warnings=(*plan.warnings, *self.warnings)),
            saved=self.image,
            structure=self.structure,
            state_before=found,
            state_after=state,
            image_state_after=self.image_state,
            duration_seconds=round(time.monotonic() - self.began, 3),
            actions=tuple(self.actions),
        )
