# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The QEMU process as the kernel sees it: which one it is, and whether it still lives.

A pid alone names nothing: pids are reused, and start again after a reboot. Boot id, pid and
start time together name one process for ever (proc(5), field 22 of /proc/PID/stat).
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ProcessIdentity:
    """``start_ticks``: clock ticks after boot at which the process started."""

    boot_id: str
    pid: int
    start_ticks: int

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> ProcessIdentity | None:
        """The identity that `as_dict` wrote, or None when ``data`` is not one."""
        if not isinstance(data, dict):
            return None
        boot_id, pid, start = data.get("boot_id"), data.get("pid"), data.get("start_ticks")
        if not (isinstance(boot_id, str) and isinstance(pid, int) and isinstance(start, int)):
            return None
        return cls(boot_id, pid, start)


def _start_ticks(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            content = stat.read()
    except OSError:
        return None
    # The program's name, in parentheses, may hold blanks and parentheses itself.
    fields = content[content.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X") and not _has_threads(pid):
        return None
    return int(fields[19])


def _has_threads(pid: int) -> bool:
    # A main thread that ended shows as a zombie while others still hold files, locks and memory.
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def boot_id() -> str:
    """The kernel's identity of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return source.read().strip()


def host_id() -> str:
    """What tells this host from others that share a store with it."""
    with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii") as source:
        return source.read().strip() or os.uname().nodename
    return os.uname().nodename


def identify(pid: int) -> ProcessIdentity | None:
    """Who ``pid`` is now; None when no such process lives (a zombie does not)."""
    start = _start_ticks(pid) if pid > 0 else None
    return None if start is None else ProcessIdentity(boot_id(), pid, start)


def runs_with(process: ProcessIdentity | None, argv: t.Sequence[str]) -> bool:
    """Whether ``process`` was started with ``argv``, whose program may lack its directory."""
    if process is None:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/cmdline", "rb") as cmdline:
        program, *words = cmdline.read().split(b"\0")[:-1] or [b""]
        wanted, *rest = map(os.fsencode, argv)
        return os.path.basename(program) == os.path.basename(wanted) and words == rest
    return False


def find_with(argv: t.Sequence[str]) -> ProcessIdentity | None:
    """A process that lives and was started with ``argv``; None when there is none."""
    for name in os.listdir("/proc"):
        process = identify(int(name)) if name.isdigit() else None
        if process is not None and runs_with(process, argv):
            return process
    return None


def is_alive(process: ProcessIdentity) -> bool:
    """Whether exactly this process still lives."""
    return identify(process.pid) == process


def users_of(status: os.stat_result, excluded: t.Container[int]) -> list[int]:
    """Pids of processes that have this file open, as far as they can be looked into."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid not in excluded and _has_open(pid, status)]


def _has_open(pid: int, status: os.stat_result) -> bool:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for fd in os.listdir(directory):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"{directory}/{fd}"), status):
                    return True
    return False


def thread_group(thread_id: int) -> int | None:
    """The process a thread belongs to (Tgid), None when it cannot be seen from here."""
    try:
        with open(f"/proc/{thread_id}/status", encoding="utf-8", errors="replace") as status:
            for line in status:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError:
        return None
    return None
