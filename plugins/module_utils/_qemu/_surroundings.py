# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How a QEMU process is run, beside what it was told: its user, directory, limits, environment.

Written into an image at save, read back at restore, where it decides what is run and as whom: it
is trusted no more than the image (see `_saveimage/_trust.py`), and every type is checked.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, fields

from ._command_line import options_of
from ._environment import what_matters
from ._limits import HIGHEST_LIMIT, LIMITS, Limit, at_most, read_limits
from ._process import ProcessIdentity, is_alive

_NAMESPACES = {
    "mnt": ("mount", "its files are others there"),
    "net": ("network", "its interfaces and ports are there"),
    "pid": ("process", "it cannot be seen from here as it was there"),
    "user": ("user", "its user is another one there"),
}
# The value of a namespace that is the host's, or the container's: its number says nothing after a
# reboot or under another kernel.
USUAL = "usual"
_DELETED = " (deleted)"
_HIGHEST_ID = (1 << 32) - 2  # the one above means "leave it as it is" to setresuid(2)
_MOST_GROUPS = 1 << 16  # NGROUPS_MAX


@dataclass(frozen=True)
class Surroundings:
    """Text holds bytes that are not UTF-8 as `text_of` gives them.

    ``executable``: the file that runs, absolute, which has been removed or replaced since if
    ``executable_deleted``. ``cwd``: what relative paths in ``argv`` start from, absolute.
    ``user_id``, ``group_id``: never root's if any of the process's own is not. ``limits``: soft and
    hard by the names of setrlimit(2), None where there is no limit. ``environment``: what
    `_environment` finds worth it. ``namespaces``: `USUAL`, or the kernel's link, such as
    net:[4026531840].
    """

    argv: tuple[str, ...]
    executable: str
    executable_deleted: bool
    cwd: str
    user_id: int
    group_id: int
    groups: tuple[int, ...]
    limits: t.Mapping[str, Limit]
    umask: int
    environment: t.Mapping[str, str]
    namespaces: t.Mapping[str, str]

    def as_dict(self) -> dict[str, t.Any]:
        """For JSON."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        limits = {name: list(pair) for name, pair in self.limits.items()}
        return {**data, "argv": list(self.argv), "groups": list(self.groups), "limits": limits}

    @classmethod
    def from_dict(cls, data: object) -> Surroundings | None:
        """The surroundings that `as_dict` wrote, or None when ``data`` is not such a thing."""
        if not isinstance(data, dict) or not all(
            name in data and check(data[name]) for name, check in _CHECKS.items()
        ):
            return None
        known = {name: data[name] for name in _CHECKS}
        limits = {name: (soft, hard) for name, (soft, hard) in data["limits"].items()}
        known.update(argv=tuple(data["argv"]), groups=tuple(data["groups"]), limits=limits)
        return cls(**known)


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _is_path(value: object) -> bool:
    return _is_text(value) and str(value).startswith("/")


def _is_number(value: object, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _is_id(value: object) -> bool:
    return _is_number(value, _HIGHEST_ID)


def _are_words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _are_groups(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_GROUPS and all(map(_is_id, value))


def _are_limits(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in LIMITS.values() and _is_limit(pair) for name, pair in value.items()
    )


def _is_limit(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    if not all(limit is None or _is_number(limit, HIGHEST_LIMIT) for limit in pair):
        return False
    return at_most(pair[0], pair[1])


def _is_environment(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_mapping(value)
        and all(name and "=" not in name for name in value)
    )


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and _is_text(text) for name, text in value.items()
    )


_CHECKS: dict[str, t.Callable[[object], bool]] = {
    "argv": _are_words,
    "executable": _is_path,
    "executable_deleted": lambda value: isinstance(value, bool),
    "cwd": _is_path,
    "user_id": _is_id,
    "group_id": _is_id,
    "groups": _are_groups,
    "limits": _are_limits,
    "umask": lambda value: _is_number(value, 0o777),
    "environment": _is_environment,
    "namespaces": _is_mapping,
}


def text_of(data: bytes) -> str:
    """What the kernel gave, as text that JSON carries; the same under every locale."""
    return data.decode("utf-8", "surrogateescape")


def observe(process: ProcessIdentity) -> Surroundings | None:
    """How exactly this process is run; None when it ended or may not be looked into (proc(5))."""
    directory = f"/proc/{process.pid}"
    found = None
    with contextlib.suppress(OSError):
        found = _observed(directory)
    return found if found is not None and is_alive(process) else None


def _observed(directory: str) -> Surroundings | None:
    argv = [text_of(word) for word in _read(directory, "cmdline").split(b"\0")]
    if not argv[-1]:
        del argv[-1]
    variables = _variables(_read(directory, "environ"))
    executable, deleted = _link(f"{directory}/exe")
    cwd, _gone = _link(f"{directory}/cwd")
    if not (argv and executable.startswith("/") and cwd.startswith("/")):
        return None
    status = dict(line.split(":", 1) for line in text_of(_read(directory, "status")).splitlines())
    return Surroundings(
        argv=tuple(argv),
        executable=executable,
        executable_deleted=deleted,
        cwd=started_in(argv, cwd, variables),
        user_id=chosen_id(status["Uid"]),
        group_id=chosen_id(status["Gid"]),
        groups=tuple(map(int, status["Groups"].split())),
        limits=read_limits(text_of(_read(directory, "limits"))),
        umask=int(status["Umask"], 8),
        environment=what_matters(variables),
        namespaces=_namespaces(directory),
    )


def _read(directory: str, name: str) -> bytes:
    with open(f"{directory}/{name}", "rb") as source:
        return source.read()


def _link(path: str) -> tuple[str, bool]:
    """Where it leads, and whether that was removed since."""
    target = text_of(os.readlink(os.fsencode(path)))
    if not target.endswith(_DELETED):
        return target, False
    with contextlib.suppress(OSError):  # a name may end so
        if os.path.samestat(os.stat(path), os.stat(target.encode("utf-8", "surrogateescape"))):
            return target, False
    return target[: -len(_DELETED)], True


def _variables(environ: bytes) -> dict[str, str]:
    variables: dict[str, str] = {}
    for entry in environ.split(b"\0"):
        name, equals, value = text_of(entry).partition("=")
        if name and equals:
            variables.setdefault(name, value)  # getenv(3) finds the first
    return variables


def started_in(argv: t.Sequence[str], cwd: str, variables: t.Mapping[str, str]) -> str:
    """The directory that relative paths in ``argv`` start from.

    -daemonize leaves a QEMU in / (os-posix.c); where it came from is told by the shell's PWD.
    """
    before = variables.get("PWD", "")
    if cwd != "/" or not before.startswith("/"):
        return cwd
    daemonized = any(option.name == "daemonize" for option in options_of(argv[1:]))
    return before if daemonized else cwd


def chosen_id(line: str) -> int:
    """From real, effective, saved and filesystem id, the one to start the program with.

    They are one after -runas. Where they differ, the program's file gives the effective one (its
    set-user-ID bit) and does so again; and a root that gave up only the effective one is not root.
    """
    real, effective = map(int, line.split()[:2])
    return real or effective


def own_namespaces() -> dict[str, str]:
    """Those of this run."""
    return _namespaces("/proc/self")


def _namespaces(directory: str) -> dict[str, str]:
    usual = _links("/proc/1")
    if usual is None:  # not root, or one with fewer rights: its own namespaces pass for the usual
        usual = _links("/proc/self") or {}
    found = _links(directory)
    if found is None:
        raise PermissionError(f"the namespaces of {directory} cannot be seen")
    return {name: USUAL if usual.get(name) == link else link for name, link in found.items()}


def _links(directory: str) -> dict[str, str] | None:
    """None when they may not be seen. A kernel may be built without some."""
    links: dict[str, str] = {}
    for name in _NAMESPACES:
        try:
            links[name] = os.readlink(f"{directory}/ns/{name}")
        except PermissionError:
            return None
        except FileNotFoundError:
            continue
    return links or None


def differing_namespaces(
    recorded: t.Mapping[str, str], own: t.Mapping[str, str]
) -> tuple[str, ...]:
    """Why it cannot be started from here as it ran: a sentence for each namespace that differs."""
    return tuple(
        f"Its QEMU ran in another {kind} namespace ({name}) than this run, and {why}: start it "
        "there, waiting with -incoming defer -S, and give qmp_socket; or give argv that works here."
        for name, (kind, why) in _NAMESPACES.items()
        if recorded.get(name, own.get(name)) != own.get(name)
    )
