# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The use case of a save through libvirt: one domain becomes one image (DESIGN.md, Through
libvirt).

libvirt writes under the hidden name and ends QEMU itself; what it wrote is flushed and verified
afterwards, and only then gets its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field, replace

from .._domain_instance import never_ran_since
from .._errors import ImageInvalid, LibvirtError, Refused, StoreError, VmfleetError
from .._failure import words_of
from .._image_record import SavedImage, describe_target
from .._lent_image import give_back, label_of
from .._libvirt._autostart import hold_autostart, release_autostart
from .._libvirt._connection import SPARSE_VERSION, Connection
from .._libvirt._domain import LOST, Domain
from .._libvirt._qemu_conf import QemuConf, read_knobs
from .._libvirt._traps import blockers_of, offered_by, remove_leaked_fdsets, set_direct_io
from .._libvirt._virsh import can_say_channels
from .._qemu._deadline import Deadline
from .._qemu._fdset import direct_io_refusal
from .._qemu._negotiation import MAPPED_RAM
from .._saveimage._domain_machine import machine_of
from .._saveimage._lock import is_at
from .._saveimage._prefix import ALIGNMENT_BYTES
from .._saveimage._publish import PartialImage, check_target, partial_path
from .._saveimage._verify import Structure
from .._store_speed import for_saving, known_speed
from .._telling import SAVING, Steps, about
from .._uninterrupted import in_thread, uninterrupted
from ._domain_absent import save_of_absent_domain
from ._domain_leftover import Treated, treat_leftover
from ._domain_plan import Offer, check_domain, plan_domain_save
from ._domain_report import CRASHED, failed, failed_afterwards, outcome, verify_written
from ._domain_request import DomainSaveRequest
from ._domain_settled import advice_on, settled
from ._domain_written import (
    is_whole,
    look_at_disks,
    machine_in,
    make_version_3,
    may_be_whole,
    note_disks,
)
from ._existing import held, spend
from ._outcome import SaveOutcome
from ._plan import ImageKind, SavePlan
from ._planning import free_bytes, read_domain_xml


async def save_domain(request: DomainSaveRequest, *, check_mode: bool) -> SaveOutcome:
    """Save the domain, or find that it was saved before.

    Raises `Refused` before anything was touched and `SaveFailed` afterwards; `LibvirtError` where
    the daemon does not answer.
    """
    began = time.monotonic()
    connection = await Connection.open(request.uri)
    try:
        with about(SAVING, request.domain, request.path, silent=check_mode):
            return await _Save(request, connection, began, check_mode=check_mode).execute()
    finally:
        await uninterrupted(connection.close())


@dataclass
class _Save(Steps):
    _step = "looking at the domain"

    request: DomainSaveRequest
    connection: Connection
    began: float
    check_mode: bool
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    async def execute(self) -> SaveOutcome:
        path = self.request.path
        deadline = Deadline(self.request.timeout_seconds)
        check_target(path)
        domain = await self.connection.find(self.request.domain)
        if domain is None or not domain.active:
            return await save_of_absent_domain(self.request, domain, check_mode=self.check_mode)
        check_domain(domain)  # a job would keep QEMU from being asked
        check_domain(domain, await blockers_of(self.connection, domain.uuid))
        measured = await known_speed(
            self.request,
            for_saving,
            self.connection.hypervisor,
            domain.memory_bytes,
            may_measure=not self.check_mode,
        )
        self.request = replace(self.request, measured=measured)
        # Nothing is removed for a save that would then be refused.
        await self._plan(domain, describe_target(path), None)
        left = await treat_leftover(self.request, domain, check_mode=self.check_mode)
        recovers = _recovers(path, left)
        existing = describe_target(path)
        if self.check_mode:
            plan = await self._plan(domain, existing, None)
            return self._outcome(replace(plan, recovers=recovers), domain, existing)
        if left is not None:
            self.actions.append(f"removed what a run that died had left: {left.reason}")
        with held(existing) as fd, contextlib.closing(PartialImage.create(path)) as image:
            self.actions.append(f"created {image.path}")
            label_before = label_of(image.fd)
            plan = await self._plan(domain, existing, None)
            try:
                plan = await self._prepare(domain, existing, image)
                if existing is not None and fd is not None and existing.uuid == domain.uuid:
                    self.step = "marking the older image of the domain spent"
                    self.actions += spend(existing, fd)
                self.step = "switching autostart off"
                if await hold_autostart(self.connection, domain):
                    self.actions.append("switched autostart off until it is restored")
                await self._write(domain, plan, image, deadline)
            except BaseException as exc:
                await uninterrupted(self._undo(domain, image, exc))
            structure, kind = await uninterrupted(self._finish(domain, plan, image, label_before))
        plan = replace(plan, recovers=recovers, kind=kind)
        return self._outcome(plan, domain, existing, structure)

    async def _plan(
        self, domain: Domain, existing: SavedImage | None, direct_io_proved: bool | None
    ) -> SavePlan:
        read_domain_xml(self.request.domain_xml_file)  # refused here, not once libvirt works
        mapped_ram, direct_io = await offered_by(self.connection, domain.uuid)
        machine = machine_of(await self.connection.description(domain.uuid))
        recent = self.connection.version >= SPARSE_VERSION
        return plan_domain_save(
            self.request,
            domain,
            self._conf(),
            existing,
            Offer(
                choice=recent,
                sparse=recent and mapped_ram,
                direct_io=direct_io,
                channels=can_say_channels(),
                ram_files=machine.memory_files if machine is not None else (),
            ),
            cpu_count=len(os.sched_getaffinity(0)),
            free_bytes=free_bytes(self.request.path),
            direct_io_proved=direct_io_proved,
            never_ran=await never_ran_since(self.connection, existing, domain),
        )

    def _conf(self) -> QemuConf:
        if self.request.image_format is not None or self.request.image_version is not None:
            with contextlib.suppress(StoreError):  # no obstacle to what was asked for by name
                return read_knobs(self.request.qemu_conf)
            return QemuConf(self.request.qemu_conf, None, None)
        return read_knobs(self.request.qemu_conf)

    async def _prepare(
        self, domain: Domain, existing: SavedImage | None, image: PartialImage
    ) -> SavePlan:
        self.step = "preparing the save"
        plan = await self._plan(domain, existing, None)
        if plan.negotiated.bypass_cache:
            self.step = "trying O_DIRECT on the image"
            refusal = direct_io_refusal(image.fd, ALIGNMENT_BYTES, write=True)
            plan = await self._plan(domain, existing, refusal is None)
        self.step = "setting direct-io in QEMU"
        # Off even for a save past the cache: libvirt switches it on for that, and a run that is
        # killed in between leaves no trap for somebody else's save.
        if await set_direct_io(self.connection, domain.uuid, False):
            self.actions.append("set direct-io off in QEMU")
        return plan

    async def _write(
        self, domain: Domain, plan: SavePlan, image: PartialImage, deadline: Deadline
    ) -> None:
        self.step = "libvirt saved it"
        mapped = plan.kind.layout == MAPPED_RAM
        told = "sparse" if mapped else plan.kind.image_format
        choice = self.connection.version >= SPARSE_VERSION
        try:
            await self.connection.save(
                domain.uuid,
                image.path,
                image_format=told if choice else None,
                channels=plan.negotiated.channels,
                bypass_cache=plan.negotiated.bypass_cache,
                domain_xml=read_domain_xml(self.request.domain_xml_file),
                timeout_seconds=deadline.remaining_seconds(),
            )
        except LibvirtError as exc:
            deadline.check(f"libvirt saved the domain ({exc.description})")
            raise
        self.actions.append("saved the domain, and let libvirt end its QEMU")

    async def _finish(
        self, domain: Domain, plan: SavePlan, image: PartialImage, label_before: str | None
    ) -> tuple[Structure, ImageKind]:
        """The guest is gone: what is here is all there is of it. Returns what the image is."""
        kind = plan.kind
        try:
            self.step = "flushing the image"
            if not is_at(image.fd, image.path):
                raise StoreError(f"{image.path} was replaced by another file while it was written.")
            # Before anything that takes time, in which somebody might start the domain.
            machine = await in_thread(lambda: machine_in(image))
            disks = await in_thread(lambda: look_at_disks(machine))
            await in_thread(image.sync)  # libvirt does not (T6)
            self.step = "verifying the image"
            structure = await self._verify(domain, plan, image)
            self.step = "recording what its disks are like"
            self.warnings += await in_thread(lambda: note_disks(image, disks, machine))
            if kind.version == 3:
                self.step = "stamping the image version 3"
                warning = await in_thread(lambda: make_version_3(image))
                if warning is not None:
                    self.warnings.append(warning)
                    kind = ImageKind(2, "sparse", MAPPED_RAM, kind.reason)
            self.step = "publishing the image"
            await self._refuse_if_started(domain)
            if label_before is not None:  # libvirt leaves the label of the guest on it
                label = label_of(image.fd)
                self.warnings += give_back(image.fd, image.path, label, label_before)
            image.give_name()
        except Refused as exc:
            advice = f"The next save of the domain removes {image.path}."
            raise failed(domain, self.step, exc, "running", self.actions, advice) from exc
        except (VmfleetError, OSError) as exc:
            raise failed_afterwards(domain, self.step, exc, self.actions, image.path) from exc
        self.actions.append(f"published {image.path}")
        return structure, kind

    async def _refuse_if_started(self, domain: Domain) -> None:
        now: Domain | None = None
        with contextlib.suppress(LibvirtError):
            now = await self.connection.find(domain.uuid)
        if now is not None and now.active:
            raise Refused(
                "Somebody started the domain while its image was verified: it runs afresh, and the "
                "image is stale. It got no name."
            )

    async def _verify(self, domain: Domain, plan: SavePlan, image: PartialImage) -> Structure:
        if not is_whole(image, domain.uuid):
            raise ImageInvalid(image.path, 0, f"it is no whole image of {domain.name}")
        return await verify_written(image.fd, image.path, plan.kind.image_format)

    async def _undo(self, domain: Domain, image: PartialImage, cause: BaseException) -> None:
        """Everything as before, and `SaveFailed`; returns where libvirt had saved the domain all
        the same, so that the file is all there is of it."""
        now, known = await settled(self.connection, domain.uuid)
        gone = known and (now is None or not now.active)
        if gone and is_whole(image, domain.uuid):
            self.actions.append(f"libvirt had saved it when this came up: {words_of(cause)}")
            return
        advice, state = advice_on(now, known=known, path=image.path), "unknown"
        if gone:
            state = CRASHED if now is None or now.off_because in LOST else now.state
            if may_be_whole(image):
                state, advice = (
                    "stopped",
                    (
                        f"libvirt had ended its QEMU, and {image.path} may be all there is of the "
                        "guest, though it was not understood here. Keep that file."
                    ),
                )
            else:
                advice += await self._release_autostart(domain)
                self._discard(image)
        elif now is not None:
            state = now.state
            advice += await self._let_go(domain)
            # Whatever came up meanwhile writes into this file.
            still, known = await settled(self.connection, domain.uuid)
            if known and still is not None and still.active:
                self._discard(image)
        if isinstance(cause, Refused):
            raise cause
        if not isinstance(cause, (VmfleetError, OSError, asyncio.CancelledError)):
            raise cause
        raise failed(domain, self.step, cause, state, self.actions, advice) from cause

    def _discard(self, image: PartialImage) -> None:
        with contextlib.suppress(StoreError):
            image.discard()
            self.actions.append(f"removed {image.path}")

    async def _release_autostart(self, domain: Domain) -> str:
        """What is told where it could not be switched on again; empty where it was."""
        if not domain.persistent:
            return ""
        try:
            if await release_autostart(self.connection, domain.uuid):
                self.actions.append("switched autostart on again")
        except LibvirtError as exc:
            return (
                f" Its autostart is still off, as it could not be switched on again: {exc.message} "
                f"Do it by hand: virsh autostart {domain.name}."
            )
        return ""

    async def _let_go(self, domain: Domain) -> str:
        """Put back what the save changed in a domain that goes on; what could not be is told."""
        said = await self._release_autostart(domain)
        with contextlib.suppress(VmfleetError):
            await set_direct_io(self.connection, domain.uuid, False)
        with contextlib.suppress(VmfleetError):
            if await remove_leaked_fdsets(self.connection, domain.uuid):
                self.actions.append("took back the descriptors that libvirt left in QEMU")
        return said

    def _outcome(
        self,
        plan: SavePlan,
        domain: Domain,
        existing: SavedImage | None,
        structure: Structure | None = None,
    ) -> SaveOutcome:
        return outcome(
            plan,
            domain,
            existing,
            structure,
            began=self.began,
            actions=self.actions,
            warnings=self.warnings,
        )


def _recovers(path: str, left: Treated | None) -> dict[str, str] | None:
    if left is None:
        return None
    return {"path": partial_path(path), "remedy": left.remedy, "reason": left.reason}
