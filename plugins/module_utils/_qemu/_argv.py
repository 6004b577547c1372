# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The command line of a QEMU, rewritten so that it waits for a stream."""

from __future__ import annotations

import typing as t

from .._errors import Refused
from ._command_line import TRUE_WORDS, Option, keys_of, options_of

_DROPPED: t.Mapping[str, str] = {
    "daemonize": "the process must stay the one that was started",
    "incoming": "replaced by -incoming defer",
    "S": "given once, at the end",
    "loadvm": "the guest's state comes from the image",
}


def incoming_argv(argv: t.Sequence[str], qmp_socket: str) -> tuple[list[str], tuple[str, ...]]:
    """``argv`` made into a destination that waits on ``qmp_socket`` with its vCPUs held.

    Returns the new words and what was changed, in sentences. Raises `Refused` when there is no
    program to run, or the words contradict a wait on that socket.
    """
    if not argv or not argv[0]:
        raise Refused("argv is empty: its first word must be the QEMU program.")
    kept: list[Option] = []
    changes: list[str] = []
    for option in options_of(argv[1:]):
        if option.name == "preconfig":
            raise Refused(
                "argv has -preconfig: such a QEMU waits for its configuration before there is a "
                "machine to load. Remove it from argv."
            )
        reason = _DROPPED.get(option.name or "")
        if reason is not None:
            # Without its value: -incoming exec: may hold a password.
            changes.append(f"Dropped {option.words[0]}: {reason}.")
        else:
            kept.append(option)
    words = [argv[0], *(word for option in kept for word in option.words)]
    if not _has_monitor(kept, qmp_socket):
        words += ["-qmp", f"unix:{qmp_socket.replace(',', ',,')},server=on,wait=off"]
        changes.append(f"Added a monitor on {qmp_socket}.")
    words += ["-incoming", "defer", "-S"]
    changes.append("Added -incoming defer -S: it waits for the image, with its vCPUs held.")
    return words, tuple(changes)


def _has_monitor(options: t.Sequence[Option], qmp_socket: str) -> bool:
    """Whether a QMP monitor listens on ``qmp_socket``. Raises `Refused` when the socket is used
    for something else, which would take the place of the monitor."""
    found = False
    control_ids = _control_chardev_ids(options)
    for option in options:
        keys = _socket_keys(option)
        if keys is None or keys.get("path") != qmp_socket:
            continue
        is_qmp = option.name in ("qmp", "qmp-pretty") or (
            option.name == "chardev" and keys.get("id") in control_ids
        )
        if not is_qmp or keys.get("server") not in TRUE_WORDS:
            raise Refused(
                f"argv uses {qmp_socket} for something other than a QMP monitor that listens "
                f"({' '.join(option.words)}). Give qmp_socket another path, or write "
                "-qmp unix:PATH,server=on,wait=off."
            )
        found = True
    return found


def _control_chardev_ids(options: t.Iterable[Option]) -> set[str]:
    monitors = [
        keys_of(option.value, "chardev")
        for option in options
        if option.name == "mon" and option.value
    ]
    return {keys["chardev"] for keys in monitors if keys.get("mode") == "control"}


def _socket_keys(option: Option) -> dict[str, str] | None:
    """Keys of a UNIX socket given as ``-chardev socket,path=...`` or as ``-qmp unix:PATH,...``."""
    if option.value is None:
        return None
    if option.name == "chardev":
        keys = keys_of(option.value, "backend")
        return keys if keys.get("backend") == "socket" else None
    if option.name in ("qmp", "qmp-pretty", "monitor", "serial") and option.value.startswith(
        "unix:"
    ):
        return keys_of(option.value[len("unix:") :], "path")
    return None
