# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The command line of a guest, rewritten so that an image can be loaded into a throw-away QEMU
beside whatever uses the guest's disks, networks and sockets.

Made for a QEMU whose vCPUs never run: what only a running guest could reach may stay, such as a
shared directory. What QEMU itself opens, writes, binds or connects to is replaced.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import Refused
from ._command_line import Option, options_of
from ._option_value import edited, flat_keys
from ._rehearsal_backends import (
    Network,
    rehearsed_audio,
    rehearsed_chardev,
    rehearsed_device,
    rehearsed_object,
    rehearsed_port,
)
from ._rehearsal_disks import DRIVES, BlockNodes, Overlay, rehearsed_drive


def _without_lock(option: Option) -> tuple[str, ...]:
    value = option.value or ""
    if "mem-lock" not in flat_keys(value, ""):
        return option.words
    return ("-overcommit", edited(value, "", put={"mem-lock": "off"}))


def _without_replay(option: Option) -> tuple[str, ...]:
    if "rr" in flat_keys(option.value or "", "shift"):
        raise Refused("-icount: it records into a file")
    return option.words


def _only_devices(option: Option) -> tuple[str, ...]:
    if not (option.value or "").startswith("device."):
        raise Refused("-set: it changes another option, which may be replaced here")
    return option.words


_Rule = t.Callable[[Option], t.Tuple[str, ...]]

_DROPPED: t.Mapping[str, str] = {
    "D": "a rehearsal leaves no log",
    "d": "QEMU's own words must not drown in a log",
    "dfilter": "a rehearsal leaves no log",
    "display": "nobody looks",
    "dump-vmstate": "a rehearsal writes no file",
    "gdb": "its address may be in use",
    "jitdump": "a rehearsal writes no file",
    "mem-path": "the memory of a rehearsal lies in no file",
    "mem-prealloc": "a rehearsal takes only the memory that the image fills",
    "perfmap": "a rehearsal writes no file",
    "pidfile": "it belongs to the guest's own QEMU",
    "plugin": "it may write files",
    "qtest": "its address may be in use",
    "qtest-log": "a rehearsal leaves no log",
    "s": "its address may be in use",
    "spice": "its address may be in use",
    "trace": "a rehearsal leaves no log",
    "vnc": "its address may be in use",
}
_REFUSED: t.Mapping[str, str] = {
    "readconfig": "what its file brings along is not looked at",
    "tpmdev": "the guest's state would be loaded into its real TPM",
}
_RULES: t.Mapping[str, tuple[_Rule, str]] = {
    "audio": (rehearsed_audio, "sound that goes nowhere"),
    "audiodev": (rehearsed_audio, "sound that goes nowhere"),
    "chardev": (rehearsed_chardev, "a character device that reaches nothing"),
    "debugcon": (rehearsed_port, "a character device that reaches nothing"),
    "device": (rehearsed_device, "the same without the file that it would write"),
    "monitor": (rehearsed_port, "a character device that reaches nothing"),
    "icount": (_without_replay, ""),
    "object": (rehearsed_object, "an object that reaches no file"),
    "overcommit": (_without_lock, "the same without locking memory"),
    "parallel": (rehearsed_port, "a character device that reaches nothing"),
    "qmp": (rehearsed_port, "a character device that reaches nothing"),
    "qmp-pretty": (rehearsed_port, "a character device that reaches nothing"),
    "serial": (rehearsed_port, "a character device that reaches nothing"),
    "set": (_only_devices, ""),
}
_OUTSIDE = "it reaches out of its QEMU, and holds no state"
_NETWORK = ("net", "netdev", "nic")
_NO_DISPLAY = ("-display", "none")


@dataclass(frozen=True)
class Rehearsal:
    """``argv``: what to give to `incoming_argv`; ``overlays``: files that must exist first, see
    `create_overlays`; ``changes``: what was changed, in sentences, without values."""

    argv: tuple[str, ...]
    overlays: tuple[Overlay, ...]
    changes: tuple[str, ...]


def rehearsal_argv(
    argv: t.Sequence[str], scratch: str, sizes: t.Mapping[str, int], cwd: str = "/"
) -> Rehearsal:
    """``argv`` made into a QEMU that may be started beside the guest's own.

    ``scratch``: a directory of this rehearsal alone, which TMPDIR of that QEMU must name too.
    ``sizes``: virtual size in bytes of each disk, by name of its block node or by absolute path of
    its file. ``cwd``: where QEMU runs, for relative paths. Raises `Refused` for what no stand-in
    fits, by name.
    """
    options = list(options_of(argv[1:]))
    nodes = BlockNodes(options, scratch, sizes, cwd)
    network = Network(option for option in options if option.name in _NETWORK)
    words = list(argv[:1])
    changes: list[str] = []
    refused: list[str] = []
    for option in options:
        try:
            rehearsed, instead = _rehearsed(option, nodes, network)
        except Refused as exc:
            refused.append(exc.message)
            continue
        words += rehearsed
        if not rehearsed:
            changes.append(f"Dropped {_described(option)}: {instead}.")
        elif rehearsed != option.words:
            changes.append(f"Replaced {_described(option)} by {instead}.")
    if refused:
        raise Refused(
            f"This guest cannot be rehearsed: {'; '.join(refused)}. Restore it without rehearse."
        )
    if not any(option.name == "nographic" or option.words == _NO_DISPLAY for option in options):
        words += _NO_DISPLAY
    return Rehearsal(tuple(words), tuple(nodes.overlays), tuple(changes))


def _rehearsed(option: Option, nodes: BlockNodes, network: Network) -> tuple[tuple[str, ...], str]:
    """The words instead of an option, none when it is dropped, and what they are or why it is.

    Raises `Refused` with a clause that names it.
    """
    name = option.name
    if name is None or name in DRIVES:
        return rehearsed_drive(option), "the same with an overlay"
    if name == "blockdev":
        return nodes.rehearsed(option), "the same, read-only, with an overlay where it is written"
    if name in _NETWORK:
        words = network.rehearsed(option)
        return words, "a network that leads nowhere" if words else _OUTSIDE
    if name in _RULES:
        rule, instead = _RULES[name]
        words = rule(option)
        return words, instead if words else _OUTSIDE
    if name in _REFUSED:
        raise Refused(f"-{name}: {_REFUSED[name]}")
    if name in _DROPPED and option.words != _NO_DISPLAY:
        return (), _DROPPED[name]
    return option.words, ""


def _described(option: Option) -> str:
    """An option by its name and id; its other keys may hold secrets."""
    name = f"-{option.name}" if option.name else "the disk image"
    keys = flat_keys(option.value, "") if option.value else {}
    name_of_it = keys.get("id") or keys.get("node-name")
    return f"{name} {name_of_it}" if name_of_it else name
