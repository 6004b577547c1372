# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How a recorded QEMU is given back what it ran in, with what this run may do: a pure decision.

Only root becomes another user. The rest is as recorded, or the launch is refused: a QEMU with less
than it had would fail later, when its guest needs it.
"""

from __future__ import annotations

import os
import pwd
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from ._limits import Limit, at_most, lower, read_limits
from ._surroundings import Surroundings

Credentials = t.Tuple[int, int, t.Tuple[int, ...]]

_ROOT = 0
_CAP_SYS_RESOURCE = 24  # capabilities(7)
_INITIAL_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO in the kernel's proc_ns.h
# A QEMU with less of these runs as well: dumps are the administrator's, the rest is never asked
# for by QEMU, or has no effect in Linux.
_DISPENSABLE = (
    "RLIMIT_CORE",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RSS",
    "RLIMIT_SIGPENDING",
)
# QEMU raises its own limit of open files as far as it may (os-posix.c of 10.0), so what it had
# tells what was allowed, not what it needs; this many are the kernel's own default.
_ENOUGH_FILES = 1024


@dataclass(frozen=True)
class Setting:
    """``credentials``: user, group and groups to take on, None to stay as this run is. ``limits``:
    those to set. ``notes``: what is not as it was, in sentences."""

    cwd: str
    environment: t.Mapping[str, str]
    umask: int
    limits: t.Mapping[str, Limit]
    credentials: Credentials | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Own:
    """What this run is and may do. ``path``: its PATH, None without one. ``raises_limits``: it may
    raise hard limits."""

    user_id: int
    group_id: int
    groups: tuple[int, ...]
    limits: t.Mapping[str, Limit]
    raises_limits: bool
    path: str | None


def own_facts() -> Own:
    """Of this run."""
    with open("/proc/self/limits", encoding="ascii") as limits:
        content = limits.read()
    return Own(
        user_id=os.geteuid(),
        group_id=os.getegid(),
        groups=tuple(os.getgroups()),
        limits=read_limits(content),
        raises_limits=_may_raise_limits(),
        path=os.environ.get("PATH"),
    )


def _may_raise_limits() -> bool:
    """A container's root may hold the capability, but only in its own user namespace."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        held = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
    if not int(held, 16) >> _CAP_SYS_RESOURCE & 1:
        return False
    try:
        return os.readlink("/proc/self/ns/user") == _INITIAL_USER_NAMESPACE
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def user_name(user_id: int) -> str:
    """For messages."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def choose_setting(surroundings: Surroundings) -> Setting:
    """How this run would start a QEMU in these surroundings. Raises `Refused`."""
    directory = surroundings.cwd.encode("utf-8", "surrogateescape")
    return plan_launch(
        surroundings,
        own_facts(),
        name=user_name(surroundings.user_id),
        cwd_exists=os.path.isdir(directory),
    )


def plan_launch(surroundings: Surroundings, own: Own, *, name: str, cwd_exists: bool) -> Setting:
    """Decide how; ``name``: of the recorded user. Raises `Refused` with every reason at once."""
    problems: list[str] = []
    notes: list[str] = []
    credentials = _credentials(surroundings, own, name, problems)
    if not cwd_exists:
        problems.append(
            f"the directory {surroundings.cwd}, which relative paths in its argv start from, does "
            "not exist; make it again, or give argv"
        )
    limits = {
        limit: pair
        for limit, wanted in surroundings.limits.items()
        for pair in [_reachable(limit, wanted, own, problems, notes)]
        if pair != own.limits.get(limit)
    }
    if problems:
        raise Refused("Its QEMU cannot be started as it was recorded: " + "; ".join(problems) + ".")
    environment = dict(surroundings.environment)
    if own.path is not None:
        environment.setdefault("PATH", own.path)
    return Setting(
        surroundings.cwd, environment, surroundings.umask, limits, credentials, tuple(notes)
    )


def _credentials(
    surroundings: Surroundings, own: Own, name: str, problems: list[str]
) -> Credentials | None:
    wanted = (surroundings.user_id, surroundings.group_id, surroundings.groups)
    if own.user_id == _ROOT:
        # A root without the right to change groups can still start what ran as itself.
        as_it_is = wanted == (own.user_id, own.group_id, own.groups)
        return None if as_it_is else wanted
    if surroundings.user_id != own.user_id:
        way_out = "as root (become)"
        if surroundings.user_id != _ROOT:
            way_out += f" or as user {name}"
        problems.append(
            f"it ran as user {name} (uid {surroundings.user_id}), and this run is uid "
            f"{own.user_id}; run the restore {way_out}"
        )
        return None
    # Of one's own groups, having more does no harm; the gid a login begins with may be another.
    missing = {surroundings.group_id, *surroundings.groups} - {own.group_id, *own.groups}
    if missing:
        problems.append(
            f"it ran with the groups {', '.join(map(str, sorted(missing)))}, which this run does "
            f"not have; run the restore as root (become), or let user {name} log in with them"
        )
    return None


def _reachable(limit: str, wanted: Limit, own: Own, problems: list[str], notes: list[str]) -> Limit:
    if limit not in own.limits:
        return wanted
    own_hard = own.limits[limit][1]
    if own.raises_limits or at_most(wanted[1], own_hard):
        return wanted
    soft = lower(wanted[0], own_hard)
    most = f"and this run can have at most {_words(own_hard)}"
    if soft == wanted[0]:
        notes.append(f"Its hard {limit} was {_words(wanted[1])}, {most}.")
    elif _does_without(limit, own_hard):
        notes.append(f"Its {limit} was {_words(wanted[0])}, {most}.")
    else:
        way_out = "raise the limit of this user"
        way_out += "" if own.user_id == _ROOT else ", or run the restore as root (become)"
        problems.append(f"its {limit} was {_words(wanted[0])}, {most}; {way_out}")
    return soft, own_hard


def _does_without(limit: str, most: int | None) -> bool:
    """Whether a QEMU runs as well with at most so much of it."""
    if limit == "RLIMIT_NOFILE":
        return most is None or most >= _ENOUGH_FILES
    return limit in _DISPENSABLE


def _words(limit: int | None) -> str:
    return "unlimited" if limit is None else str(limit)
