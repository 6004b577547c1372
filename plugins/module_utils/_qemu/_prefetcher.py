# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Reading an image ahead of its guest: a small program that outlives the run, but not the guest.

It fills the page cache, from which the guest's mapping is served. In the background it takes at
most half of the store's time, and stops when the host runs short of memory, when the guest's QEMU
is gone, or after an hour. Who waits for it waits until all is read, or to its own timeout.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import time
import typing as t
from dataclasses import dataclass

from .._uninterrupted import within
from ._deadline import Deadline
from ._launch import login_prefix
from ._process import ProcessIdentity

_START_SECONDS = 60.0
_MOST_SECONDS = 3600.0
# Kept free for everybody else, of the memory that the kernel calls available.
_SPARED_SHARE = 0.1

# Prints a line of JSON now and then where it is waited for; every read is of a whole chunk, so that
# the store sees large requests.
PREFETCHER = """
import json, os, sys, time
CHUNK = 1 << 20
wanted = json.loads(sys.stdin.readline())
image, waited_for = wanted["fd"], wanted["waited_for"]
if not waited_for:
    if os.fork():
        os._exit(0)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
os.nice(10)
began, done, buffer = time.monotonic(), 0, bytearray(CHUNK)

def lives():
    try:
        with open("/proc/%d/stat" % wanted["pid"]) as stat:
            fields = stat.read().rpartition(")")[2].split()
        return fields[0] not in "ZX" and int(fields[19]) == wanted["start_ticks"]
    except (OSError, IndexError, ValueError):
        return False

def memory_is_short():
    found = {}
    with open("/proc/meminfo") as meminfo:
        for line in meminfo:
            name, _colon, rest = line.partition(":")
            found[name] = int(rest.split()[0])
    return found.get("MemAvailable", 0) < found["MemTotal"] * wanted["spared_share"]

def tell(ended):
    if waited_for:
        print(json.dumps({"read_bytes": done, "ended": ended}), flush=True)

def read_all():
    global done
    told = checked = 0.0
    for start, length in wanted["ranges"]:
        for position in range(start, start + length, CHUNK):
            now = time.monotonic()
            if now - checked > 0.2:
                checked = now
                if not lives():
                    return "the guest is gone"
                if memory_is_short():
                    return "memory is short"
                if not waited_for and now - began > wanted["most_seconds"]:
                    return "it took too long"
            size = min(CHUNK, start + length - position)
            got = os.preadv(image, [memoryview(buffer)[:size]], position)
            done += got
            if got < size:
                return "the image is shorter than it was"
            took = time.monotonic() - now
            if not waited_for:
                time.sleep(took)
            if now - told > 0.5:
                told = now
                tell(None)
    return "complete"

try:
    ended = read_all()
except OSError as exc:
    ended = "reading failed: %s" % exc.strerror
tell(ended)
"""


@dataclass(frozen=True)
class Prefetched:
    """``waited_for``: until its end; else ``read_bytes``, ``seconds`` and ``ended`` (why) are
    None."""

    waited_for: bool
    total_bytes: int
    read_bytes: int | None = None
    seconds: float | None = None
    ended: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """For the result."""
        return dict(vars(self))


async def prefetch(
    fd: int,
    ranges: t.Sequence[tuple[int, int]],
    guest: ProcessIdentity,
    deadline: Deadline,
    *,
    waited_for: bool,
) -> Prefetched:
    """Read the ``ranges`` (offset and length in bytes) of the file ``fd``, in order, for the
    process ``guest``. Raises OSError when the reader cannot be started."""
    began = time.monotonic()
    total = sum(length for _start, length in ranges)
    # Opened again: a descriptor of the same description would keep the image locked.
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = {
            "fd": own,
            "ranges": list(ranges),
            "waited_for": waited_for,
            "pid": guest.pid,
            "start_ticks": guest.start_ticks,
            "most_seconds": _MOST_SECONDS,
            "spared_share": _SPARED_SHARE,
        }
        reader = await asyncio.create_subprocess_exec(
            *(() if waited_for else login_prefix()),
            sys.executable,
            "-I",
            "-c",
            PREFETCHER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if waited_for else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(own,),
            start_new_session=not waited_for,  # a hangup of the login does not reach it
        )
    finally:
        os.close(own)
    if reader.stdin is None:
        raise AssertionError("the reader was started without a pipe")
    reader.stdin.write(json.dumps(wanted).encode() + b"\n")
    reader.stdin.close()
    if not waited_for:
        await _begun(reader)
        return Prefetched(False, total)
    read_bytes, ended = await _followed(reader, deadline)
    return Prefetched(True, total, read_bytes, round(time.monotonic() - began, 3), ended)


async def _begun(reader: asyncio.subprocess.Process) -> None:
    try:
        status = await within(_START_SECONDS, reader.wait())
    except asyncio.TimeoutError:
        reader.kill()
        await reader.wait()
        raise OSError(errno.ETIMEDOUT, "its reader did not start") from None
    if status != 0:
        raise OSError(errno.ECHILD, f"its reader ended with status {status}")


async def _followed(reader: asyncio.subprocess.Process, deadline: Deadline) -> tuple[int, str]:
    if reader.stdout is None:
        raise AssertionError("the reader was started without a pipe")
    read_bytes, ended = 0, "the reader was killed"
    try:
        while True:
            asked = asyncio.ensure_future(reader.stdout.readline())
            await asyncio.wait([asked], timeout=deadline.remaining_seconds())
            if not asked.done():
                asked.cancel()
                return read_bytes, "the timeout was reached"
            line = asked.result()
            if not line.endswith(b"\n"):  # the end, perhaps in the middle of a word
                return read_bytes, ended
            told = json.loads(line)
            read_bytes, ended = told["read_bytes"], told["ended"] or ended
    finally:
        if reader.returncode is None:
            reader.kill()
        await reader.wait()
