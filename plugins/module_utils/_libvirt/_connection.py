# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The one file that imports libvirt-python.

Every call blocks in a thread of its own, so that a long one can be watched, and cancelled through
a second connection (spec/libvirt.md 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import traceback
import typing as t
from urllib.parse import urlsplit

from .._errors import LibvirtError, Refused
from .._telling import tell_bytes
from .._uninterrupted import finished_first, uninterrupted
from ._domain import OFF_BECAUSE, STATES, Domain
from ._virsh import lacks_channels, virsh

LIBVIRT_IMPORT_ERROR: str | None = None
try:
    import libvirt
    import libvirt_qemu
except ImportError:
    LIBVIRT_IMPORT_ERROR = traceback.format_exc()

# libvirt include/libvirt/virterror.h
NO_DOMAIN = 42
_NOT_RUNNING = 55
_NO_METADATA = 80
_NAMESPACE = "urn:vmfleet:suspend:1"
_NAMESPACE_PREFIX = "vmfleet"
# Where saveParams takes format and channels, and save images can be sparse.
SPARSE_VERSION = 11_002_000
_PAUSED_STARTING_UP = 11
_PAUSED = 3
_SHUTOFF = 5
_STOP_EVERY_SECONDS = 0.5
_TELL_EVERY_SECONDS = 1.0
_AGENT_SECONDS = 5
_Result = t.TypeVar("_Result")


async def _in_thread(call: t.Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(None, call)


def _kept_quiet(_context: object, _error: object) -> None:
    """libvirt-python would print what it raises."""


def _has_job(domain: t.Any) -> bool:
    try:
        return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == _NOT_RUNNING:
            return False
        raise


def _refuse_elsewhere(uri: str, real: str) -> None:
    if urlsplit(real).netloc:
        raise Refused(
            f"uri {uri} is the daemon of another host, whose files are not here. Run this on "
            "that host, with qemu:///system or qemu:///session."
        )


def _is_alive(connection: t.Any) -> bool:
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _starts_once(found: t.Any) -> bool:
    """libvirt 11.2 and later, where binding and daemon have it."""
    try:
        return bool(found.autostartOnce())
    except (AttributeError, libvirt.libvirtError):
        return False


def _may_be_a_save(domain: t.Any) -> bool:
    """Whether the job that runs on it saves it; True where libvirt does not tell."""
    try:
        job = domain.jobStats().get("operation")
    except libvirt.libvirtError:
        return True
    return job in (None, libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE)


def _described(found: t.Any) -> Domain:
    job = _has_job(found)
    # After that: a domain that ended meanwhile is seen to have ended.
    state, reason = found.state()
    active = bool(found.isActive())
    persistent = bool(found.isPersistent())
    return Domain(
        name=found.name(),
        uuid=found.UUIDString(),
        state=STATES[state] if active else "shutoff",
        persistent=persistent,
        autostart=persistent and bool(found.autostart()),
        autostart_once=persistent and _starts_once(found),
        off_because=OFF_BECAUSE[reason]
        if state == _SHUTOFF and reason < len(OFF_BECAUSE)
        else "unknown",
        has_managed_save=bool(found.hasManagedSaveImage()),
        memory_bytes=found.info()[1] << 10,
        starting=(state, reason) == (_PAUSED, _PAUSED_STARTING_UP),
        job=active and job,
    )


class Connection:
    """A connection to a daemon, and a second one beside it. Methods raise `LibvirtError`.

    ``version``: the daemon's libvirt, as 11003000 for 11.3.0.
    """

    def __init__(self, uri: str, first: t.Any, second: t.Any, version: int) -> None:
        self.uri = uri
        self._first = first
        self._second = second
        self.version = version

    @classmethod
    async def open(cls, uri: str) -> Connection:
        """Connect twice. Raises `Refused` for a daemon of another host: it would write and read its
        own files, and those that are locked, flushed and marked are here."""
        _refuse_elsewhere(uri, uri)
        libvirt.registerErrorHandler(_kept_quiet, None)

        def connect() -> Connection:
            first = libvirt.open(uri)
            return cls(uri, first, libvirt.open(uri), first.getLibVersion())

        connection = await cls._do(f"Connecting to {uri}", connect)
        # libvirt.conf can give a remote daemon a plain name (uri_aliases).
        try:
            _refuse_elsewhere(uri, connection._first.getURI())
        except Refused:
            await connection.close()
            raise
        return connection

    async def again(self) -> bool:
        """Connect anew where a connection broke; False where the daemon cannot be reached."""

        def connect() -> None:
            if not _is_alive(self._first):
                self._first = libvirt.open(self.uri)
            if not _is_alive(self._second):
                self._second = libvirt.open(self.uri)

        try:
            await self._do(f"Connecting to {self.uri}", connect)
        except LibvirtError:
            return False
        return True

    @property
    def hypervisor(self) -> str:
        """What moves the RAM here, for who remembers how fast that was."""
        return f"libvirt {_dotted(self.version)}"

    async def close(self) -> None:
        """Let go of both; a broken connection is fine."""
        for connection in (self._first, self._second):
            with contextlib.suppress(LibvirtError):
                await self._do("Closing the connection", connection.close)

    @staticmethod
    async def _do(doing: str, call: t.Callable[[], _Result]) -> _Result:
        try:
            return await _in_thread(call)
        except libvirt.libvirtError as exc:
            raise LibvirtError(doing, str(exc), exc.get_error_code() or 0) from exc

    def _lookup(self, name_or_uuid: str) -> t.Any:
        try:
            return self._second.lookupByUUIDString(name_or_uuid)
        except libvirt.libvirtError:  # no such UUID, or none at all
            return self._second.lookupByName(name_or_uuid)

    async def find(self, name_or_uuid: str) -> Domain | None:
        """Look at a domain; None when there is none of that name or UUID."""
        try:
            return await self._do(
                f"Looking for the domain {name_or_uuid}",
                lambda: _described(self._lookup(name_or_uuid)),
            )
        except LibvirtError as exc:
            if exc.code == NO_DOMAIN:
                return None
            raise

    async def active(self) -> list[Domain]:
        """Look at every domain that a QEMU holds."""
        flag = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        found = await self._do("Listing the domains", lambda: self._second.listAllDomains(flag))
        looked = [await self.find(domain.UUIDString()) for domain in found]
        return [domain for domain in looked if domain is not None and domain.active]

    async def description(self, uuid: str) -> str:
        """The domain's XML as it is now, without what is secret in it."""
        return await self._do(
            "Reading the domain's XML", lambda: str(self._lookup(uuid).XMLDesc(0))
        )

    async def execute(
        self, uuid: str, command: str, arguments: t.Mapping[str, object] | None = None
    ) -> t.Any:
        """Ask the domain's QEMU itself; libvirt marks the domain as tainted for it. Returns what
        QEMU returns; its errors are raised too."""
        words: dict[str, object] = {"execute": command}
        if arguments:
            words["arguments"] = dict(arguments)
        doing = f"Asking QEMU for {command}"

        def ask() -> t.Any:
            return libvirt_qemu.qemuMonitorCommand(self._lookup(uuid), json.dumps(words), 0)

        answer = json.loads(await self._do(doing, ask))
        if "error" in answer:
            raise LibvirtError(doing, str(answer["error"].get("desc", answer["error"])), 0)
        return answer.get("return")

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
        loading = (state, reason) == (_PAUSED, _PAUSED_STARTING_UP)
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
            domain.agentSetResponseTimeout(_AGENT_SECONDS, 0)
            now = domain.getTime()
            return int(now["seconds"]) * 10**9 + int(now["nseconds"])

        return await self._do("Asking the guest's agent", read)

    async def set_agent_time_ns(self, uuid: str, now: int) -> None:
        """Set the guest's clock through its agent. Raises `LibvirtError`."""
        time = {"seconds": now // 10**9, "nseconds": now % 10**9}
        await self._do("Setting the guest's clock", lambda: self._lookup(uuid).setTime(time))

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

    def require(self, version: int, what: str) -> None:
        """Raise `Refused` where the daemon's libvirt is older than ``version``."""
        if self.version < version:
            raise Refused(
                f"{what} needs libvirt {_dotted(version)}; the daemon at {self.uri} is "
                f"{_dotted(self.version)}."
            )


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
