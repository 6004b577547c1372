# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The words of a QEMU command line, read as QEMU reads them.

One or two dashes, and every option takes the next word as its value unless it is one of the flags
(QEMU qemu-options.hx, system/vl.c and util/qemu-option.c of 10.0).
"""

from __future__ import annotations

import json
import re
import typing as t

# Options without a value, of QEMU 8.2 to 10.0. Whatever else starts with a dash takes one word.
FLAGS = frozenset(
    {
        "S",
        "async-teardown",
        "daemonize",
        "enable-kvm",
        "enable-sync-profile",
        "full-screen",
        "h",
        "help",
        "jitdump",
        "mem-prealloc",
        "no-acpi",
        "no-fd-bootchk",
        "no-hpet",
        "no-reboot",
        "no-shutdown",
        "no-user-config",
        "nodefaults",
        "nographic",
        "old-param",
        "one-insn-per-tb",
        "only-migratable",
        "perfmap",
        "preconfig",
        "s",
        "semihosting",
        "singlestep",
        "snapshot",
        "usb",
        "version",
        "win2k-hack",
        "xen-attach",
        "xen-domid-restrict",
    }
)

TRUE_WORDS = ("on", "yes", "true", "y")


class Option(t.NamedTuple):
    """Consecutive words of the command line. ``name`` is None for a word without a dash."""

    name: str | None
    value: str | None
    words: tuple[str, ...]


def options_of(words: t.Sequence[str]) -> t.Iterator[Option]:
    """Options of a command line whose program was taken off, in order."""
    at = 0
    while at < len(words):
        word = words[at]
        name = _option_name(word)
        takes_value = name is not None and name not in FLAGS and at + 1 < len(words)
        value = words[at + 1] if takes_value else None
        end = at + 2 if takes_value else at + 1
        yield Option(name, value, tuple(words[at:end]))
        at = end


def with_value(option: Option, value: str) -> Option:
    """The same option with another value."""
    return Option(option.name, value, (option.words[0], value))


def _option_name(word: str) -> str | None:
    if not word.startswith("-"):
        return None
    return word[2:] if word.startswith("--") else word[1:]


def parts_of(text: str) -> list[str]:
    """The ``key=value`` words of a value as they are written, their commas still doubled."""
    return re.findall(r"(?:,,|[^,])+", text)


def keys_of(text: str, implied: str) -> dict[str, str]:
    """Read ``value,key=value,flag``: commas doubled inside values, the first key implied where the
    option has such a key, a bare word is on and one with ``no`` in front is off (QEMU
    util/qemu-option.c)."""
    keys: dict[str, str] = {}
    parts = [part.replace(",,", ",") for part in parts_of(text)]
    for index, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if index == 0 and implied and (not equals or implied == "path"):
            keys[implied] = part
        elif equals:
            keys[key] = value
        elif part.startswith("no"):
            keys[part[2:]] = "off"
        else:
            keys[part] = "on"
    return keys


def json_of(text: str | None) -> dict[str, t.Any] | None:
    """The object of a value in JSON, which -blockdev, -device, -netdev, -object and others take
    as well; None for the other notation."""
    if text is None or not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def text_of(keys: t.Mapping[str, str], implied: str) -> str:
    """``keys`` as one value: the implied one first without its name, commas doubled."""
    words = {key: value.replace(",", ",,") for key, value in keys.items()}
    first = [words.pop(implied)] if implied in words else []
    return ",".join([*first, *(f"{key}={value}" for key, value in words.items())])
