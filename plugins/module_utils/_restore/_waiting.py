# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A QEMU that waits for the image: what its RAM lies in, and the plan for it."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._lent_image import look_at_access
from .._qemu._fdset import DIRECT_IO_BYTES, direct_io_refusal
from .._qemu._fresh_ram import empty_backends, stale_backends
from .._qemu._guest import Guest
from .._qemu._mapped_argv import ImageBlock
from .._qemu._monitor import Monitor
from ._load import RestoreSession
from ._plan import RestorePlan, plan_load
from ._request import RestoreRequest
from ._starter import Starter


@dataclass(frozen=True)
class WaitingQemu:
    """``mapped``: RAM blocks that it maps from the image."""

    session: RestoreSession
    request: RestoreRequest
    monitor: Monitor
    guest: Guest
    mapped: t.Sequence[ImageBlock]

    async def empty_memory(self) -> None:
        """Empty the files behind its RAM, where asked to. Raises `Refused`, `StoreError`."""
        if not self.request.reset_shared_memory:
            return
        self.session.step = "emptying the files behind the guest's RAM"
        for path in await empty_backends(
            self.monitor, self.guest.process, self._ram_blocks(), self._image()
        ):
            self.session.actions.append(f"emptied the memory file {path}")

    async def plan(self, starter: Starter) -> RestorePlan:
        """The plan for it, if ``starter`` started it or not; raises as `plan_load`."""
        stale: tuple[str, ...] = ()
        if not self.request.reset_shared_memory:
            stale = await stale_backends(
                self.monitor, self.guest.process, self._ram_blocks(), self._image()
            )
        started = starter.launch if starter.launched is not None else None
        return plan_load(
            self.session.image,
            self.guest,
            self.request,
            launch=started.origin if started is not None else None,
            checks=starter.checks,
            cpu_count=len(os.sched_getaffinity(0)),
            direct_io_proved=self._direct_io_proved(),
            stale_backends=stale,
            mapped_bytes=sum(block.length_bytes for block in self.mapped),
            access=look_at_access(self.guest.confinement, self.request.path, write=False),
        )

    def _ram_blocks(self) -> frozenset[str]:
        return frozenset(name for name, _length in self.session.image.ram_blocks)

    def _image(self) -> os.stat_result | None:
        return os.fstat(self.session.fd) if self.mapped else None

    def _direct_io_proved(self) -> bool | None:
        if not self.request.bypass_cache:
            return None
        offset = self.session.image.data_offset_bytes // DIRECT_IO_BYTES * DIRECT_IO_BYTES
        return direct_io_refusal(self.session.fd, offset, write=False) is None
