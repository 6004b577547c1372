# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The one file that imports libvirt-python: a daemon, and what its domains are like.

Every call blocks in a thread of its own, so that a long one can be watched, and cancelled through
a second connection (spec/libvirt.md 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
import typing as t
from urllib.parse import urlsplit

from .._errors import LibvirtError, Refused
from ._domain import OFF_BECAUSE, STATES, Domain

LIBVIRT_IMPORT_ERROR: str | None = None
try:
    import libvirt
    import libvirt_qemu
except ImportError:
    LIBVIRT_IMPORT_ERROR = traceback.format_exc()
    libvirt = libvirt_qemu = None

__all__ = ["LIBVIRT_IMPORT_ERROR", "PAUSED", "PAUSED_STARTING_UP", "Daemon", "libvirt"]

# libvirt include/libvirt/virterror.h
_NO_DOMAIN = 42
_NOT_RUNNING = 55
# virDomainState and virDomainPausedReason (libvirt include/libvirt/libvirt-domain.h)
PAUSED = 3
_SHUTOFF = 5
_PAUSED_SAVE = 3
PAUSED_STARTING_UP = 11
_Result = t.TypeVar("_Result")
_Own = t.TypeVar("_Own", bound="Daemon")


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
        starting=(state, reason) == (PAUSED, PAUSED_STARTING_UP),
        held_to_save=(state, reason) == (PAUSED, _PAUSED_SAVE),
        job=active and job,
    )


class Daemon:
    """A connection to a daemon, and a second one beside it. Methods raise `LibvirtError`.

    ``version``: the daemon's libvirt, as 11003000 for 11.3.0.
    """

    def __init__(self, uri: str, first: t.Any, second: t.Any, version: int) -> None:
        self.uri = uri
        self._first = first
        self._second = second
        self.version = version

    @classmethod
    async def open(cls: type[_Own], uri: str) -> _Own:
        """Connect twice. Raises `Refused` for a daemon of another host: it would write and read its
        own files, and those that are locked, flushed and marked are here."""
        _refuse_elsewhere(uri, uri)
        libvirt.registerErrorHandler(_kept_quiet, None)

        def connect() -> _Own:
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
            if exc.code == _NO_DOMAIN:
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

    def require(self, version: int, what: str) -> None:
        """Raise `Refused` where the daemon's libvirt is older than ``version``."""
        if self.version < version:
            raise Refused(
                f"{what} needs libvirt {_dotted(version)}; the daemon at {self.uri} is "
                f"{_dotted(self.version)}."
            )


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
