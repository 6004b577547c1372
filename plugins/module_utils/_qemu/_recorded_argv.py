# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The command line of a QEMU that has ended, rewritten so that it can be run once more.

`incoming_argv` then makes it wait for the stream. What else of QEMU 10.0 one may expect here:

* -snapshot stays: a guest whose writable disks are temporary is refused when it is saved.
* -readconfig stays and is read anew; the machine type is therefore pinned behind it.
* -boot once= stays: QEMU goes back to the usual order at the guest's next reset either way.
* -icount rr=record, -D, -trace file=, -chardev file: stay. QEMU begins such files anew at every
  start of the same command line.
* -dump-vmstate, -version and the like end QEMU, so no guest has them.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from ._command_line import TRUE_WORDS, Option, options_of, parts_of, with_value
from ._inherited_fds import inherited_fds
from ._mapped_argv import plain_again
from ._pairs import pairs_of

# Options that take a character device in its short notation; -gdb tells tcp: itself not to wait.
_CHARACTER_DEVICE = ("debugcon", "gdb", "monitor", "parallel", "qmp", "qmp-pretty", "serial")
_SOCKET = re.compile(r"(?:mon:)?(unix|tcp|telnet|tn3270|websocket):")
_WAIT = re.compile(r"(no)?wait|wait=.*", re.DOTALL)

_MACHINE = ("machine", "M")
_ACCELERATOR = ("accel", "enable-kvm", "readconfig")  # a configuration file may name one


@dataclass(frozen=True)
class Relaunch:
    """``argv``: ready for `incoming_argv`. ``changes``: what was changed, in sentences that quote
    no value but paths and machine types."""

    argv: tuple[str, ...]
    changes: tuple[str, ...]


def relaunch(
    argv: t.Sequence[str], *, program: str, machine_type: str, changed_user: bool
) -> Relaunch:
    """``argv`` as /proc/PID/cmdline had it, for the file ``program`` that the process ran.

    ``machine_type``: what the machine's alias or the default stood for, such as pc-q35-10.0; empty
    when unknown. ``changed_user``: QEMU was not root when it was saved, and is started as the user
    that it was. Raises `Refused`, naming every option at once, when only another argv can work.
    """
    if not argv:
        raise Refused("The recorded command line is empty. Give argv.")
    options = list(options_of(argv[1:]))
    problems = [*inherited_fds(options), *(_needing_root(options) if changed_user else ())]
    if problems:
        raise Refused(
            f"The recorded command line cannot be used again: {'; '.join(problems)}. Give argv "
            "with that replaced."
        )
    changes: list[str] = []
    if argv[0] != program:
        changes.append(f"Runs {program}, the file that {argv[0]} was.")
        options = _same_accelerator(options, argv[0], program, changes)
    options = _one_pidfile(options, changes)
    if changed_user:
        options = _without_user(options, changes)
    options = _without_waiting(options, changes)
    options = plain_again(options, changes)
    if machine_type:
        options = _with_machine_type(options, machine_type, changes)
    words = [word for option in options for word in option.words]
    return Relaunch((program, *words), tuple(changes))


def _needing_root(options: t.Iterable[Option]) -> t.Iterator[str]:
    for option in options:
        if option.name == "chroot" or _sets(option, "run-with", "chroot"):
            yield f"{option.words[0]} needs root for its chroot, and QEMU starts as another user"


def _sets(option: Option, name: str, key: str) -> bool:
    return option.name == name and key in dict(pairs_of(option.value or ""))


def _same_accelerator(
    options: list[Option], old: str, program: str, changes: list[str]
) -> list[Option]:
    """A program whose name ends with kvm prefers KVM, where nothing else says (system/vl.c); and
    the file behind Debian's kvm is called qemu-system-x86_64."""
    named = any(
        option.name in _ACCELERATOR
        or (option.name in _MACHINE and "accel" in dict(pairs_of(option.value or "", "type")))
        for option in options
    )
    if named or old.endswith("kvm") == program.endswith("kvm"):
        return options
    order = ("kvm", "tcg") if old.endswith("kvm") else ("tcg", "kvm")
    words = [word for accelerator in order for word in ("-accel", accelerator)]
    changes.append(f"Added {' '.join(words)}: what QEMU prefers when it is called {old}.")
    return [*options, *options_of(words)]


def _one_pidfile(options: list[Option], changes: list[str]) -> list[Option]:
    """Only the last one counts (system/vl.c)."""
    spare = [option for option in options if option.name == "pidfile"][:-1]
    changes += [f"Dropped -pidfile {option.value}: QEMU uses the last one." for option in spare]
    last = len(spare)
    kept: list[Option] = []
    for option in options:
        if option.name == "pidfile" and last:
            last -= 1
        else:
            kept.append(option)
    return kept


def _without_user(options: list[Option], changes: list[str]) -> list[Option]:
    kept: list[Option] = []
    for option in options:
        if option.name == "runas":
            changes.append("Dropped -runas: QEMU is started as that user.")
        elif _sets(option, "run-with", "user"):
            changes.append("Dropped user from -run-with: QEMU is started as that user.")
            rest = [part for part in parts_of(option.value or "") if not part.startswith("user=")]
            if rest:
                kept.append(with_value(option, ",".join(rest)))
        else:
            kept.append(option)
    return kept


def _without_waiting(options: list[Option], changes: list[str]) -> list[Option]:
    """A listening socket holds QEMU up until its first client comes, while the monitor, which may
    even greet already, runs no command."""
    needed = _peers_needed(options)
    kept: list[Option] = []
    for option in options:
        if _waits(option, needed):
            name = dict(pairs_of(option.value or "")).get("id", "")
            label = f"-{option.name} {name}".rstrip()
            changes.append(f"Set wait=off for {label}: QEMU would hold until its first client.")
            option = with_value(option, _not_waiting(option.value or ""))
        kept.append(option)
    return kept


def _peers_needed(options: t.Iterable[Option]) -> frozenset[str]:
    """Ids of character devices without whose peer a device cannot be made: QEMU waits for it
    whatever wait says (net/vhost-user.c), or ends if it did not wait."""
    ids: set[str] = set()
    for option in options:
        if option.name in ("device", "netdev", "object", "tpmdev"):
            keys = dict(pairs_of(option.value or "", "type"))
            kinds = (keys.get(key, "") for key in ("type", "driver", "qom-type"))
            if option.name == "tpmdev" or any("vhost-user" in kind for kind in kinds):
                ids.add(keys.get("chardev", ""))
    return frozenset(ids)


def _waits(option: Option, needed: t.Container[str]) -> bool:
    value = option.value or ""
    if option.name == "chardev":
        keys = dict(pairs_of(value, "backend"))
        listens = keys.get("backend") == "socket" and keys.get("id") not in needed
    elif option.name in _CHARACTER_DEVICE:
        keys = dict(pairs_of(value))
        found = _SOCKET.match(value)
        listens = found is not None and (option.name, found[1]) != ("gdb", "tcp")
    else:
        return False
    return listens and keys.get("server") in TRUE_WORDS and keys.get("wait", "on") in TRUE_WORDS


def _not_waiting(value: str) -> str:
    parts = parts_of(value)
    at = next((index for index, part in enumerate(parts) if _WAIT.fullmatch(part)), len(parts))
    others = [part for part in parts if not _WAIT.fullmatch(part)]
    return ",".join([*others[:at], "wait=off", *others[at:]])


def _with_machine_type(options: list[Option], wanted: str, changes: list[str]) -> list[Option]:
    """-machine and -M add up, and the last type counts, which a configuration file may have named
    (system/vl.c). Each type becomes ``wanted``; where none counts, it is added."""
    kept: list[Option] = []
    untyped: int | None = None
    settled = False
    for option in options:
        if option.name == "readconfig":
            untyped, settled = None, False
        elif option.name in _MACHINE and option.value is not None:
            old = _machine_type(option.value)
            if old is None:
                untyped = len(kept)
            elif old != wanted:
                changes.append(f"Made {option.words[0]} {old} {wanted}, which it was.")
                option = with_value(option, _typed(option.value, wanted))
            settled = settled or old is not None
        kept.append(option)
    if settled:
        return kept
    changes.append(f"Added the machine type {wanted}, which the guest has.")
    if untyped is None:
        return [*kept, *options_of(["-machine", wanted])]
    parts = parts_of(kept[untyped].value or "")
    kept[untyped] = with_value(kept[untyped], ",".join([wanted, *parts]))
    return kept


def _machine_type(value: str) -> str | None:
    return dict(pairs_of(value, "type")).get("type")


def _typed(value: str, wanted: str) -> str:
    first, *others = parts_of(value)
    kept = [part for part in others if not part.startswith("type=")]
    if "=" not in first:
        return ",".join([wanted, *kept])
    parts = [f"type={wanted}" if part.startswith("type=") else part for part in [first, *others]]
    return ",".join(parts)
