# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Measuring a store, briefly: a file without a name, which no crash leaves behind, is written and
read with and without O_DIRECT, by one thread and by several."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
import typing as t

from .._errors import StoreError
from .._measured import Figure, Figures
from ._lock import store_error

# What is written at most; each of the measurements ends after its time, whatever it has moved.
MOST_BYTES = 64 << 20
_MEASURE_SECONDS = 0.2
# The page cache takes everything at once, and a slow store is only found out by the fsync.
_TRIAL_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY)
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)

_Move = t.Callable[[int, int], int]


def measure(directory: str, cpu_count: int) -> Figures:
    """Figures of the filesystem of this directory; takes a second or two. To be called in a thread.

    Raises `StoreError` naming the directory, as for a store that is full.
    """
    try:
        fd = _open_nameless(directory)
    except OSError as exc:
        raise store_error("Measuring", directory, exc) from exc
    try:
        with mmap.mmap(-1, _CHUNK_BYTES) as chunk:  # page-aligned, as O_DIRECT demands
            chunk.write(os.urandom(_CHUNK_BYTES))  # nothing that compresses
            return _measure(fd, chunk, sorted({1, max(1, min(4, cpu_count))}))
    except OSError as exc:
        raise store_error("Measuring", directory, exc) from exc
    finally:
        os.close(fd)


def _open_nameless(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in _NO_TMPFILE:
            raise
    path = os.path.join(directory, f".vmfleet-probe-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


def _measure(fd: int, chunk: mmap.mmap, channels: t.Sequence[int]) -> Figures:
    direct_fd = _direct(fd)
    try:
        if direct_fd is not None and not _takes_direct(direct_fd, chunk):
            os.close(direct_fd)
            direct_fd = None
        targets = [(True, direct_fd), (False, fd)] if direct_fd is not None else [(False, fd)]
        write = [
            Figure(direct, count, _write_rate(target, count, chunk))
            for count in channels
            for direct, target in targets
        ]
        read = []
        for count in channels:
            for direct, target in targets:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                size = os.fstat(fd).st_size
                read.append(Figure(direct, count, _rate(target, count, _reader(target), size)))
    finally:
        if direct_fd is not None:
            os.close(direct_fd)
    return Figures(time.time(), tuple(write), tuple(read))


def _direct(fd: int) -> int | None:
    """The same file past the page cache; None where the filesystem refuses that."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in _NO_DIRECT:
            return None
        raise


def _takes_direct(fd: int, chunk: mmap.mmap) -> bool:
    """Some filesystems open it and refuse the first write."""
    try:
        return os.pwrite(fd, chunk, 0) == _CHUNK_BYTES
    except OSError as exc:
        if exc.errno in _NO_DIRECT:
            return False
        raise


def _writer(fd: int, chunk: mmap.mmap) -> _Move:
    return lambda offset, _thread: os.pwrite(fd, chunk, offset)


def _reader(fd: int) -> _Move:
    own: dict[int, mmap.mmap] = {}

    def read(offset: int, thread: int) -> int:
        buffer = own.setdefault(thread, mmap.mmap(-1, _CHUNK_BYTES))
        return os.preadv(fd, [buffer], offset)

    return read


def _write_rate(fd: int, threads: int, chunk: mmap.mmap) -> float:
    """As `_rate`, of no more than what a trial says can be written in the time."""
    write = _writer(fd, chunk)
    trial = _rate(fd, threads, write, _TRIAL_BYTES, sync=True)
    size = int(trial * _MEASURE_SECONDS)
    if size <= _TRIAL_BYTES:
        return trial
    return _rate(fd, threads, write, min(MOST_BYTES, size), sync=True)


def _rate(fd: int, threads: int, move: _Move, size_bytes: int, *, sync: bool = False) -> float:
    """Bytes per second. Each thread has a part of the file to itself, of whole chunks."""
    part = max(1, size_bytes // threads // _CHUNK_BYTES) * _CHUNK_BYTES
    moved = [0] * threads
    failures: list[OSError] = []
    began = time.monotonic()

    def work(thread: int) -> None:
        try:
            while moved[thread] < part and time.monotonic() - began < _MEASURE_SECONDS:
                size = move(thread * part + moved[thread], thread)
                if size <= 0:
                    return
                moved[thread] += size
        except OSError as exc:
            failures.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    if sync:
        os.fsync(fd)
    if not any(moved):
        raise StoreError("A file that was just written holds nothing.")
    return sum(moved) / (time.monotonic() - began)
