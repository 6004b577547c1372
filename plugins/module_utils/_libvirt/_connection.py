# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What libvirt is asked to do with a domain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import typing as t

from .._errors import LibvirtError
from .._telling import tell_bytes
from .._uninterrupted import finished_first, uninterrupted
from ._daemon import PAUSED, PAUSED_STARTING_UP, Daemon, libvirt
from ._virsh import lacks_channels, virsh

# Where saveParams takes format and channels, and save images can be sparse.
SPARSE_VERSION = 11_002_000
# libvirt include/libvirt/virterror.h
_NO_METADATA = 80
_NAMESPACE = "urn:vmfleet:suspend:1"
_NAMESPACE_PREFIX = "vmfleet"
_STOP_EVERY_SECONDS = 0.5
_TELL_EVERY_SECONDS = 1.0
_AGENT_SECONDS = 5
# hwclock, which the agent waits for, itself waits 10 s for a clock that does not tick.
_AGENT_SETS_SECONDS = 15


@contextlib.contextmanager
def _answered_within(domain: t.Any, seconds: int) -> t.Iterator[None]:
    """libvirt keeps for the domain how long its agent is waited for, for its other users too."""
    domain.agentSetResponseTimeout(seconds, 0)
    try:
        yield
    finally:
        domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def _may_be_a_save(domain: t.Any) -> bool:
    """Whether the job that runs on it saves it; True where libvirt does not tell."""
    try:
        job = domain.jobStats().get("operation")
    except libvirt.libvirtError:
        return True
    return job in (None, libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE)


class Connection(Daemon):
    """A daemon that saves, restores and keeps what is to be known of a domain. Methods raise
    `LibvirtError`, and are cancelled as each of them says."""

    async def qemu_version(self) -> int:
        """Of the QEMU that the daemon starts where a domain names none, as 10000002 for 10.0.2; 0
        where there is none."""
        try:
            return await self._do("Asking for QEMU's version", self._first.getVersion)
        except LibvirtError:
            return 0

    async def save(
        self,
        uuid: str,
        path: str,
        *,
        image_format: str | None,
        channels: int,
        bypass_cache: bool,
        domain_xml: str | None,
        timeout_seconds: float | None,
    ) -> None:
        """Save the domain into ``path``, absolute (T3, T8), and let libvirt end its QEMU.

        ``image_format``: None leaves it to qemu.conf; ``channels``: 0 with a sequential layout.
        When the time is over, or the run is cancelled, the job is aborted and the guest runs on.
        """
        doing = f"Saving into {path}"
        flags = libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE if bypass_cache else 0
        parameters: dict[str, object] = {"file": path, "image_format": image_format}
        if channels > 1:
            parameters["parallel.channels"] = channels
        if domain_xml is not None:
            parameters["dxml"] = domain_xml

        def call() -> bool:
            """False where the binding has no saveParams (libvirt-python before 8.4)."""
            domain = self._first.lookupByUUIDString(uuid)
            if image_format is None:
                domain.saveFlags(path, domain_xml, flags)
            elif hasattr(domain, "saveParams"):
                domain.saveParams(parameters, flags)
            else:
                return False
            return True

        async def save() -> None:
            said = False
            try:
                said = await self._do(doing, call)
            except LibvirtError as exc:
                if not lacks_channels(exc):
                    raise
            if not said:
                words = ["save", uuid, path, "--image-format", str(image_format)]
                words += [f"--parallel-channels={channels}"] if channels > 1 else []
                words += ["--bypass-cache"] if bypass_cache else []
                await virsh(self.uri, doing, *words, domain_xml=domain_xml)

        # libvirt writes the header before it does anything else.
        await self._abortable(uuid, save(), timeout_seconds, lambda: os.path.getsize(path) > 0)

    async def managed_save(
        self, uuid: str, *, bypass_cache: bool, timeout_seconds: float | None
    ) -> None:
        """As `save`, into a file of libvirt's own, which the next start of the domain restores."""
        flags = libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE if bypass_cache else 0

        def call() -> None:
            self._first.lookupByUUIDString(uuid).managedSave(flags)

        work = self._do("The managed save", call)
        await self._abortable(uuid, work, timeout_seconds, lambda: True)

    async def _abortable(
        self,
        uuid: str,
        work: t.Coroutine[t.Any, t.Any, None],
        timeout_seconds: float | None,
        has_begun: t.Callable[[], bool],
    ) -> None:
        """``has_begun``: the job that runs on the domain is this one, and not somebody else's whose
        end it waits for."""
        job, cancelled = asyncio.ensure_future(work), False
        telling = asyncio.ensure_future(self._tell_progress(uuid))
        try:
            await asyncio.wait([job], timeout=timeout_seconds)
        except asyncio.CancelledError:
            cancelled = True
        finally:
            telling.cancel()
        if not job.done():

            def abort() -> None:
                domain = self._lookup(uuid)
                if has_begun() and _may_be_a_save(domain):
                    domain.abortJob()

            await uninterrupted(self._stop(job, abort))
        if cancelled and job.exception() is not None:
            raise asyncio.CancelledError
        job.result()

    async def _tell_progress(self, uuid: str) -> None:
        """How far libvirt's job is, again and again."""
        while True:
            await asyncio.sleep(_TELL_EVERY_SECONDS)
            with contextlib.suppress(LibvirtError):
                stats = await self._do("Asking for the job", lambda: self._lookup(uuid).jobStats())
                total = stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL)
                if total:
                    left = stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_REMAINING, 0)
                    tell_bytes(total - left, total)

    async def _stop(self, job: asyncio.Future[None], stop: t.Callable[[], object]) -> None:
        """Until the job is over: it may not have begun, or be past the point of no return."""
        while not job.done():
            with contextlib.suppress(LibvirtError, OSError):
                await self._do("Stopping the job", stop)
            await asyncio.wait([job], timeout=_STOP_EVERY_SECONDS)

    async def restore_paused(
        self,
        uuid: str,
        path: str,
        *,
        channels: int,
        bypass_cache: bool,
        timeout_seconds: float | None,
    ) -> None:
        """Load ``path``, absolute (T8), into a QEMU that libvirt starts; no vCPU runs.

        libvirt cannot abort this. When the time is over, or the run is cancelled, the domain is
        destroyed, which never ran, and the image is as it was.
        """
        doing = f"Restoring {path}"
        flags = libvirt.VIR_DOMAIN_SAVE_PAUSED
        if bypass_cache:
            flags |= libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE

        def load() -> None:
            if channels > 1:
                self._first.restoreParams({"file": path, "parallel.channels": channels}, flags)
            else:
                self._first.restoreFlags(path, None, flags)

        async def restore() -> None:
            try:
                await self._do(doing, load)
            except LibvirtError as exc:
                if not lacks_channels(exc):
                    raise
                words = ["restore", path, f"--parallel-channels={channels}", "--paused"]
                words += ["--bypass-cache"] if bypass_cache else []
                await virsh(self.uri, doing, *words)

        job, cancelled = asyncio.ensure_future(restore()), False
        try:
            await asyncio.wait([job], timeout=timeout_seconds)
        except asyncio.CancelledError:
            cancelled = True
        destroyed: list[bool] = []
        if not job.done():
            await uninterrupted(self._stop(job, lambda: destroyed.append(self._give_up(uuid))))
            failed = job.exception() is not None
            # It may have been loaded at the last moment, and be there.
            if not cancelled and (failed or any(destroyed)):
                raise LibvirtError(doing, "the domain was destroyed while it was loaded", 0)
        if cancelled:
            raise asyncio.CancelledError
        job.result()

    def _give_up(self, uuid: str) -> bool:
        """Destroy what is still being loaded, whoever began that: it never ran, and libvirt removes
        no image before it has. What runs, or was paused, is somebody else's. True when destroyed.
        """
        domain = self._lookup(uuid)
        state, reason = domain.state()
        loading = (state, reason) == (PAUSED, PAUSED_STARTING_UP)
        if loading:
            domain.destroy()
        return loading

    async def start_paused(self, uuid: str, *, bypass_cache: bool) -> None:
        """Load the domain's managed save, which libvirt removes then; no vCPU runs.

        It is for the caller to know that there is one: without, a fresh guest would be made. A
        cancellation comes through when it is over: the file may be gone already.
        """
        flags = libvirt.VIR_DOMAIN_START_PAUSED
        if bypass_cache:
            flags |= libvirt.VIR_DOMAIN_START_BYPASS_CACHE

        def start() -> None:
            self._first.lookupByUUIDString(uuid).createWithFlags(flags)

        await finished_first(self._do("Restoring the managed save", start))

    async def resume(self, uuid: str) -> None:
        """Let the vCPUs run."""
        await self._do("Resuming the domain", lambda: self._lookup(uuid).resume())

    async def suspend(self, uuid: str) -> None:
        """Stop the vCPUs."""
        await self._do("Pausing the domain", lambda: self._lookup(uuid).suspend())

    async def shut_down(self, uuid: str) -> None:
        """Ask the guest to shut down; returns at once."""
        await self._do("Asking the domain to shut down", lambda: self._lookup(uuid).shutdown())

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Whether libvirt starts the domain when the host comes up."""
        await self._do("Setting autostart", lambda: self._lookup(uuid).setAutostart(int(on)))

    async def set_autostart_once(self, uuid: str, on: bool) -> None:
        """Whether it does so with the next start alone."""
        await self._do(
            "Setting autostart once", lambda: self._lookup(uuid).setAutostartOnce(int(on))
        )

    async def agent_time_ns(self, uuid: str) -> int:
        """The guest's clock by its agent, nanoseconds since the epoch. Raises `LibvirtError`."""

        def read() -> int:
            domain = self._lookup(uuid)
            with _answered_within(domain, _AGENT_SECONDS):
                now = domain.getTime()
            return int(now["seconds"]) * 10**9 + int(now["nseconds"])

        return await self._do("Asking the guest's agent", read)

    async def set_agent_time_ns(self, uuid: str, now: int) -> None:
        """Set the guest's clock through its agent. Raises `LibvirtError`."""
        time = {"seconds": now // 10**9, "nseconds": now % 10**9}

        def write() -> None:
            domain = self._lookup(uuid)
            with _answered_within(domain, _AGENT_SETS_SECONDS):
                domain.setTime(time)

        await self._do("Setting the guest's clock", write)

    async def write_notes(self, uuid: str, notes: t.Collection[str]) -> None:
        """Keep these words of ours, and no others, in the domain's configuration."""
        words = " ".join(f"{note}='on'" for note in sorted(notes))

        def write() -> None:
            self._lookup(uuid).setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                f"<held {words}/>" if notes else None,
                _NAMESPACE_PREFIX if notes else None,
                _NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_CONFIG,
            )

        await self._do("Noting what is held", write)

    async def read_notes(self, uuid: str) -> frozenset[str]:
        """What `write_notes` wrote; nothing for a transient domain, which has no configuration."""

        def read() -> frozenset[str]:
            domain = self._lookup(uuid)
            if not domain.isPersistent():
                return frozenset()
            try:
                element = domain.metadata(
                    libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                    _NAMESPACE,
                    libvirt.VIR_DOMAIN_AFFECT_CONFIG,
                )
            except libvirt.libvirtError as exc:
                if exc.get_error_code() == _NO_METADATA:
                    return frozenset()
                raise
            return frozenset(re.findall(r"\b(\w+)=['\"]on['\"]", element))

        return await self._do("Looking for what is held", read)
