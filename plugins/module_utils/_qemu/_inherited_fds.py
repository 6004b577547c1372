# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which options of a command line count on file descriptors that QEMU's starter had opened.

Their numbers mean nothing to another process: QEMU would use whatever file has that number there.
"""

from __future__ import annotations

import re
import typing as t

from ._command_line import Option, json_of
from ._pairs import Pair, flat, pairs_of

# Options that take keys, and the key that stands for their first word (QEMU 10.0: system/vl.c).
_IMPLIED: t.Mapping[str, str | None] = {
    "add-fd": None,
    "blockdev": "driver",
    "chardev": "backend",
    "device": "driver",
    "drive": None,
    "fsdev": "fsdriver",
    "global": None,
    "net": "type",
    "netdev": "type",
    "nic": "type",
    "object": "qom-type",
    "set": None,
    "virtfs": "fsdriver",
}
_KINDS = ("type", "backend", "driver", "fsdriver", "qom-type")
# Text for the guest or for people; and what no destination keeps.
_NEVER = frozenset({"append", "incoming", "name", "prom-env"})

_KEYS = frozenset({"fd", "fds", "sock-fd", "sock-fds", "sock_fd", "vhostfd", "vhostfds"})
_PATH = re.compile(
    r"(?:.*:)?(?:/dev/(?:fdset|fd)/\d+|/proc/(?:self|thread-self|\d+)/fd/\d+|/dev/stdin)"
)
_PATH_ADVICE = "the path of the file itself"
_ADDRESS_ADVICE = "the address of the socket"

# Kind of the netdev, device and so on, then key -> what to give instead.
_ADVICE: t.Mapping[tuple[str, str], str] = {
    ("tap", "fd"): "ifname=NAME,script=no,downscript=no",
    ("tap", "fds"): "ifname=NAME,script=no,downscript=no",
    ("tap", "vhostfd"): "vhost=on",
    ("tap", "vhostfds"): "vhost=on",
    ("socket", "fd"): _ADDRESS_ADVICE,
    ("vhost-vdpa", "vhostfd"): "vhostdev=PATH",
    ("vfio-pci", "fd"): "host=ADDRESS",
    ("proxy", "sock_fd"): "socket=PATH",
}


def inherited_fds(options: t.Iterable[Option]) -> t.Iterator[str]:
    """For each option that uses such a descriptor, half a sentence that names the option, its keys
    and what to give instead. Never a value, which may be a secret."""
    for option in options:
        if option.name in _NEVER:
            continue
        if option.name == "add-fd":
            yield "-add-fd hands file descriptors over (give files by their paths instead)"
            continue
        pairs = _pairs_of(option)
        kind = next((value for key, value in pairs if key in _KINDS), "")
        uses = list(_uses(option.name in _IMPLIED, kind, pairs))
        if uses:
            keys = ", ".join(dict.fromkeys(key for key, _advice in uses if key))
            advice = " and ".join(dict.fromkeys(advice for _key, advice in uses))
            yield (
                f"{_label(option, pairs)} uses a file descriptor that its starter handed over "
                f"({keys + ': ' if keys else ''}give {advice} instead)"
            )


def _uses(keyed: bool, kind: str, pairs: t.Iterable[Pair]) -> t.Iterator[tuple[str, str]]:
    """Keys that use a descriptor, and what to give for each. ``keyed``: keys have a meaning."""
    for key, value in pairs:
        leaf = key.rpartition(".")[2]
        if value.startswith("json:"):  # a block device's file name may be a whole description
            for inner, advice in _uses(keyed, kind, flat(json_of(value[len("json:") :]))):
                yield f"{key}.{inner}".lstrip("."), advice
        elif _PATH.fullmatch(value):
            yield key, _PATH_ADVICE
        elif keyed and leaf in _KEYS:
            yield key, _ADVICE.get((kind, leaf), f"the same without {leaf}")
        elif keyed and leaf == "type" and value == "fd":
            yield key, _ADDRESS_ADVICE


def _pairs_of(option: Option) -> list[Pair]:
    """Keys and values, as far as the option takes any; a whole value has an empty key."""
    if option.name is None:
        return [("", option.words[0])]
    value = option.value or ""
    if option.name in _IMPLIED:
        return pairs_of(value, _IMPLIED[option.name])
    return [("", value), *pairs_of(value, "")]


def _label(option: Option, pairs: t.Iterable[Pair]) -> str:
    if option.name is None:
        return "A disk image"
    named = next((value for key, value in pairs if key in ("id", "node-name")), "")
    return f"-{option.name} {named}".rstrip()
