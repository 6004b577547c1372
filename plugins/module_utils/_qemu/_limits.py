# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Resource limits of a process: setrlimit(2), as /proc shows them."""

from __future__ import annotations

import re
import typing as t

Limit = t.Tuple[t.Optional[int], t.Optional[int]]

# proc_pid_limits() in the kernel's fs/proc/base.c, and the names in setrlimit(2). File locks are
# left out: Linux has not limited them since 2.4.
LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}
_LIMIT_LINE = re.compile(r"(Max .*?) {2,}(\S+) +(\S+)")
HIGHEST_LIMIT = (1 << 63) - 1


def read_limits(content: str) -> dict[str, Limit]:
    """Soft and hard limits in /proc/PID/limits by the names of setrlimit(2), in the kernel's own
    units (most are bytes); None where there is no limit."""
    found = (_LIMIT_LINE.match(line) for line in content.splitlines())
    return {
        LIMITS[line[1]]: (_limit(line[2]), _limit(line[3]))
        for line in found
        if line is not None and line[1] in LIMITS
    }


def _limit(text: str) -> int | None:
    return None if text == "unlimited" else int(text)


def at_most(limit: int | None, other: int | None) -> bool:
    """Whether a limit is not above another."""
    return other is None or (limit is not None and limit <= other)


def lower(limit: int | None, other: int | None) -> int | None:
    """The lower one of two limits."""
    return limit if at_most(limit, other) else other
