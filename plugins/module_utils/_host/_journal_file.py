# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Journals on disk: one file for each suspend, always whole.

A change is a new file, flushed, renamed over the old one, and the directory flushed too, so that a
crash at any moment leaves the old one or the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import json
import os
import stat
import typing as t
from dataclasses import dataclass, replace

from .._errors import Busy, Refused
from .._qemu._process import boot_id
from .._saveimage._lock import lock_holder, store_error
from .._saveimage._trust import distrust
from .._uninterrupted import uninterrupted
from ._journal import Entry, Journal, JournalInvalid, parse

_SUFFIX = ".json"
_HALF = ".partial"
_LOCK = ".lock"
_KEPT = 20
_MOST_BYTES = 64 << 20


class AnotherRun(Busy):
    """Another run suspends or resumes this host, or has since it was looked at."""


@dataclass(frozen=True)
class Journals:
    """Those of a directory, the newest first. ``unreadable``: path and reason of each that could
    not be read."""

    journals: tuple[Journal, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


def path_of(directory: str, journal: Journal) -> str:
    return os.path.join(directory, journal.id + _SUFFIX)


def now() -> str:
    """The time as journals hold it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_journals(directory: str) -> Journals:
    """All journals; a directory that is not there has none. Raises `StoreError` where it cannot be
    looked into."""
    try:
        names = sorted(os.listdir(directory), reverse=True)
    except FileNotFoundError:
        return Journals()
    except OSError as exc:
        raise store_error("Reading", directory, exc) from exc
    journals, unreadable = [], []
    for name in names:
        if name.endswith(_SUFFIX):
            path = os.path.join(directory, name)
            try:
                journals.append(_read(path))
            except JournalInvalid as exc:
                unreadable.append((path, exc.reason))
    return Journals(tuple(journals), tuple(unreadable))


def _read(path: str) -> Journal:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as source:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise JournalInvalid(path, "it is no regular file")
            # It says which command lines a resume starts.
            doubt = distrust(fd, path, os.geteuid())
            if doubt is not None:
                raise JournalInvalid(path, f"others could have written it: {doubt}")
            content = source.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise JournalInvalid(path, exc.strerror or str(exc)) from exc
    if len(content) > _MOST_BYTES:
        raise JournalInvalid(path, f"it is larger than {_MOST_BYTES} bytes")
    try:
        data = json.loads(content)
    except json.JSONDecodeError as exc:
        raise JournalInvalid(path, f"it is damaged at offset {exc.pos}: {exc.msg}") from exc
    except (UnicodeDecodeError, RecursionError) as exc:
        raise JournalInvalid(path, f"it is damaged: {exc}") from exc
    return parse(data, path)


def open_journal(journals: Journals, store: str) -> Journal | None:
    """The one for this store that is not closed. Raises `JournalInvalid` where one that cannot be
    read may be it, and `Refused` where there are several."""
    if journals.unreadable:
        raise JournalInvalid(*journals.unreadable[0])
    found = [one for one in journals.journals if one.store == store and one.closed is None]
    if len(found) > 1:
        names = ", ".join(one.id for one in found)
        raise Refused(
            f"Several suspends into {store} are open: {names}. Only one may be; look which of "
            "these journals is a copy, and move it away."
        )
    return found[0] if found else None


class JournalWriter:
    """The journal that a run writes, which holds the directory's lock as long as it is open.

    Changes of many tasks are written together, in a thread; each returns when its own is on disk.
    """

    def __init__(self, directory: str, journal: Journal, lock_fd: int) -> None:
        self.path = path_of(directory, journal)
        self.journal = journal
        self._directory = directory
        self._lock_fd = lock_fd
        self._wanted = journal
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    def create(cls, directory: str, journal: Journal) -> JournalWriter:
        """Begin one. Raises `AnotherRun` when another run writes a journal, or has begun one for
        this store meanwhile, and `StoreError`."""
        fd = _lock(directory)
        try:
            known = read_journals(directory)
            if open_journal(known, journal.store) is not None:
                raise AnotherRun(
                    f"Another run has begun a suspend into {journal.store} since this host was "
                    "looked at. Run this again."
                )
            _tidy(directory, known)
            _write(directory, journal)
        except BaseException:
            os.close(fd)
            raise
        return cls(directory, journal, fd)

    @classmethod
    def resume(cls, directory: str, journal: Journal) -> JournalWriter:
        """Go on with one that was read. Raises as `create`."""
        fd = _lock(directory)
        try:
            if _read(path_of(directory, journal)) != journal:
                raise AnotherRun(
                    f"Another run has changed {path_of(directory, journal)} since this host was "
                    "looked at. Run this again."
                )
        except BaseException:
            os.close(fd)
            raise
        return cls(directory, journal, fd)

    async def close(self) -> None:
        """Let other runs write, once what is being written is."""
        while self._writing is not None and not self._writing.done():
            await uninterrupted(_over(self._writing))
        os.close(self._lock_fd)

    async def set(self, key: str, state: str, **changes: t.Any) -> None:
        """Move a guest on; durable when this returns. Raises `StoreError`."""
        entry = self._wanted.entry(key).moved(state, boot_id=boot_id(), changed_at=now(), **changes)
        await self._change(self._wanted.with_entries([entry]))

    async def add(self, entries: t.Sequence[Entry]) -> None:
        """New guests; durable when this returns."""
        if entries:
            stamped = [replace(entry, boot_id=boot_id(), changed_at=now()) for entry in entries]
            await self._change(self._wanted.with_entries(stamped))

    async def note(self, **changes: t.Any) -> None:
        """Fields of the journal itself; durable when this returns."""
        await self._change(replace(self._wanted, **changes))

    async def _change(self, journal: Journal) -> None:
        self._wanted = journal
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            # Nobody may be waiting any more when it fails.
            self._written.add_done_callback(lambda future: future.exception())
        waiting = self._written
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        await asyncio.shield(waiting)

    async def _write_all(self) -> None:
        """Until nothing is left to be written: changes that come meanwhile go out together."""
        loop = asyncio.get_running_loop()
        while self._written is not None:
            waiting, journal = self._written, self._wanted
            self._written = None
            try:
                await loop.run_in_executor(None, _write, self._directory, journal)
            except Exception as exc:
                # It may have been renamed before the failure; and what came meanwhile was made
                # from changes that are not on disk.
                with contextlib.suppress(JournalInvalid):
                    self.journal = _read(self.path)
                self._wanted = self.journal
                later, self._written = self._written, None
                for future in filter(None, (waiting, later)):
                    future.set_exception(exc)
            else:
                self.journal = journal
                waiting.set_result(None)


def refuse_beside_another(directory: str) -> None:
    """Raise `AnotherRun` while a run writes a journal there: it holds the guests' monitors, too."""
    path = os.path.join(directory, _LOCK)
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # nobody ever wrote one there
        return
    except OSError as exc:
        raise store_error("Opening", path, exc) from exc
    _lock_alone(fd, path)
    os.close(fd)


def _lock(directory: str) -> int:
    """Raises `AnotherRun` naming who has it."""
    path = os.path.join(directory, _LOCK)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise store_error("Opening", path, exc) from exc
    _lock_alone(fd, path)
    return fd


def _lock_alone(fd: int, path: str) -> None:
    """Lock an open file, which is closed where that fails. Raises as `_lock`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = lock_holder(fd)
        os.close(fd)
        if not isinstance(exc, BlockingIOError):
            raise store_error("Locking", path, exc) from exc
        raise AnotherRun(
            "Another run suspends or resumes this host"
            + (f" (pid {holder})" if holder else "")
            + ". Wait for it to end, then run this again.",
            holder_pid=holder,
        ) from None


def _tidy(directory: str, known: Journals) -> None:
    """Half-written files of runs that died, and closed journals but the newest, go."""
    closed = [path_of(directory, one) for one in known.journals if one.closed is not None]
    halves = [
        os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(_HALF)
    ]
    for path in (*halves, *closed[_KEPT:]):
        with contextlib.suppress(OSError):
            os.unlink(path)


async def _over(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _write(directory: str, journal: Journal) -> None:
    path = path_of(directory, journal)
    half = f"{path}{_HALF}"
    text = json.dumps(journal.as_json(), indent=1)
    # Nothing is written that could not be read.
    parse(json.loads(text), path)
    try:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as target:
            os.fchmod(target.fileno(), 0o600)
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.rename(half, path)
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)
    except OSError as exc:
        raise store_error("Writing the journal", path, exc) from exc
