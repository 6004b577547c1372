# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a domain that comes back from libvirt's managed save.

libvirt removes the file once it is loaded, and would do so with the vCPUs running already: here
they are held until it is gone. What is left to do then is noted in the domain's configuration,
because no file is there any more to note it in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import typing as t
from dataclasses import dataclass, field, replace

from .._domain_instance import was_started_to_load
from .._errors import ImageInvalid, LibvirtError, Refused, VmfleetError
from .._failure import facts_of, words_of
from .._image_record import SavedImage, describe
from .._libvirt._autostart import release_autostart
from .._libvirt._connection import Connection
from .._libvirt._domain import Domain
from .._libvirt._managed import managed_save_path
from .._libvirt._notes import RESUME, forget, is_noted, note
from .._libvirt_transfer import left_to_libvirt
from .._saveimage._lock import lock_image
from .._saveimage._verify import Structure, verify_structure
from .._telling import RESTORING, Steps, about
from .._uninterrupted import uninterrupted
from ._direct_io import switch_direct_io_off
from ._domain_plan import Step
from ._domain_request import ManagedRestoreRequest
from ._failing import RestoreFailed
from ._managed_plan import decide
from ._outcome import RestoreOutcome
from ._plan import RestorePlan, runs_afterwards

# By whether there is something to load, and check mode.
_VERBS = {
    (True, True): "Would restore",
    (True, False): "Restored",
    (False, True): "Would resume",
    (False, False): "Resumed",
}


async def restore_managed(request: ManagedRestoreRequest, *, check_mode: bool) -> RestoreOutcome:
    """Bring the domain back, or find that it is there.

    Raises `Refused` before anything was loaded and `RestoreFailed` afterwards.
    """
    began = time.monotonic()
    connection = await Connection.open(request.uri)
    try:
        domain = await connection.find(request.domain)
        if domain is None:
            raise Refused(
                f"There is no domain {request.domain} at {request.uri}.", guest={"state": "absent"}
            )
        run = _ManagedRestore(request, connection, domain, began, check_mode)
        with about(RESTORING, domain.name, None, silent=check_mode):
            return await run.execute()
    finally:
        await uninterrupted(connection.close())


def _look(path: str, domain: Domain) -> tuple[SavedImage, Structure]:
    """What libvirt would load. Raises `Refused` for what it would throw away for a fresh boot."""
    fd = lock_image(path, write=False)
    try:
        image = describe(fd, path)
        if (image.state, image.uuid) != ("ready", domain.uuid):
            raise Refused(
                f"{path} is no whole image of {domain.name}: it is {image.state}, and of UUID "
                f"{image.uuid or 'unknown'}. libvirt would boot the domain afresh in its place. "
                "Look at that file; remove it with virsh managedsave-remove if nobody needs it.",
                guest={"name": domain.name, "uuid": domain.uuid, "state": domain.state},
            )
        return image, verify_structure(fd, path)
    except ImageInvalid as exc:
        raise Refused(f"{exc.message}. libvirt was not asked to load it.") from exc
    finally:
        os.close(fd)


@dataclass
class _ManagedRestore(Steps):
    _step = "noting that it shall run"

    request: ManagedRestoreRequest
    connection: Connection
    domain: Domain
    began: float
    check_mode: bool
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    async def execute(self) -> RestoreOutcome:
        domain, asked = self.domain, self.request.run_state
        path = managed_save_path(self.request.uri, domain.name)
        held = await is_noted(self.connection, domain.uuid, RESUME)
        if held and domain.state == "paused" and not (domain.starting or domain.job):
            held = await was_started_to_load(self.connection, domain.uuid)
        step, reason = decide(domain, held=held, asked=asked)
        found = domain.state if domain.active else "absent"
        image, structure = _look(path, domain) if step is Step.LOAD else (None, None)
        wanted = step is Step.CONTINUE or (image is not None and runs_afterwards(asked, image))
        plan = self._plan(step, reason, wanted, path, image)
        changed = step is not Step.NOTHING
        if changed and not self.check_mode:
            if image is not None:
                await self._load(wanted, bypass_cache=bool(self.request.bypass_cache))
            # No cancellation from here on: libvirt's file is gone, the guest is all there is.
            await uninterrupted(self._loaded(wanted))
        elif held and domain.state == "running" and not self.check_mode:
            await uninterrupted(forget(self.connection, domain.uuid, RESUME))
        after = "running" if wanted else "paused"
        verb = _VERBS[step is Step.LOAD, self.check_mode]
        source = " from libvirt's managed save" if step is Step.LOAD else ""
        return RestoreOutcome(
            changed=changed,
            message=f"{verb} {domain.name}{source}."
            if changed
            else f"{domain.name} is {found}; there is no managed save to restore.",
            plan=replace(plan, warnings=tuple(self.warnings)),
            saved=image,
            structure=structure,
            state_before=found,
            state_after=after if changed else found,
            image_state_after="removed",
            guest=(domain.name, domain.uuid),
            duration_seconds=round(time.monotonic() - self.began, 3),
            actions=tuple(self.actions),
        )

    def _plan(
        self, step: Step, reason: str, wanted: bool, path: str, image: SavedImage | None
    ) -> RestorePlan:
        negotiated = None
        if image is not None:
            negotiated = left_to_libvirt(
                image.layout,
                channels_asked=None,
                bypass_cache_asked=self.request.bypass_cache,
                cpu_count=1,
                may_choose=False,
            )
        return RestorePlan(
            action=step.value,
            path=path,
            layout=image.layout if image is not None else "unknown",
            compressor=image.compressor if image is not None else None,
            run_afterwards=wanted,
            launch="libvirt" if step is Step.LOAD else None,
            negotiated=negotiated,
            reason=reason,
        )

    async def _load(self, wanted: bool, *, bypass_cache: bool) -> None:
        uuid = self.domain.uuid
        try:
            if wanted:
                await note(self.connection, uuid, RESUME)
            self.step = "libvirt restored it"
            await self.connection.start_paused(uuid, bypass_cache=bypass_cache)
        except BaseException as exc:
            await uninterrupted(self._undo(exc))
        self.actions.append("let libvirt load its managed save and remove it, vCPUs held")

    async def _loaded(self, wanted: bool) -> None:
        # Whoever loaded it: this run, or one that died.
        uuid = self.domain.uuid
        self.warnings += await switch_direct_io_off(self.connection, uuid, self.actions)
        if wanted:
            await self._run()

    async def _undo(self, cause: BaseException) -> t.NoReturn:
        now: Domain | None = None
        with contextlib.suppress(LibvirtError):
            now = await self.connection.find(self.domain.uuid)
        if now is not None and not now.active:
            with contextlib.suppress(LibvirtError):
                await forget(self.connection, self.domain.uuid, RESUME)
        self._raise(cause, now)

    async def _run(self) -> None:
        self.step = "resuming the domain"
        try:
            await self.connection.resume(self.domain.uuid)
        except LibvirtError as exc:
            now: Domain | None = None
            with contextlib.suppress(LibvirtError):
                now = await self.connection.find(self.domain.uuid)
            self._raise(exc, now)
        self.actions.append("resumed the domain")
        try:
            await forget(self.connection, self.domain.uuid, RESUME)
            if await release_autostart(self.connection, self.domain.uuid):
                self.actions.append("switched autostart on again")
        except LibvirtError as exc:
            self.warnings.append(f"The domain runs, but tidying up failed: {exc.message}")

    def _raise(self, cause: BaseException, now: Domain | None) -> t.NoReturn:
        if not isinstance(cause, (VmfleetError, OSError, asyncio.CancelledError)):
            raise cause
        state = "unknown" if now is None else now.state if now.active else "absent"
        if now is None:
            advice = f"Look at the domain with virsh domstate {self.domain.name}."
        elif now.active:
            advice = f"The domain is {state}. Run this again to go on."
        elif now.has_managed_save:
            advice = "No QEMU holds the domain, and libvirt keeps its managed save."
        else:
            advice = "No QEMU holds the domain, and libvirt has removed its managed save."
        raise RestoreFailed(
            f"Restoring {self.domain.name} failed while {self.step}: {words_of(cause)} {advice}",
            **facts_of(cause),
            step=self.step,
            guest={"name": self.domain.name, "uuid": self.domain.uuid, "state": state},
            actions=list(self.actions),
            changed=state not in ("absent", "unknown"),
        ) from cause
