# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a guest reaches outside of its QEMU, replaced for a rehearsal by something of the same kind
that reaches nothing.

The state in the image must still fit: a network backend keeps its offloads, a character device its
id, a memory backend the name of its RAM block. What no stand-in fits is refused.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import Refused
from ._command_line import Option, json_of
from ._option_value import edited, flat_keys, is_on, to_json

# Devices, by the beginning of their type: why there can be no second one.
_REFUSED_DEVICES: t.Mapping[str, str] = {
    "ivshmem-doorbell": "its peers would see a second guest",
    "scsi-block": "it passes a host device through",
    "scsi-generic": "it passes a host device through",
    "u2f-passthru": "it passes a host device through",
    "usb-host": "it passes a host device through",
    "vfio-": "it passes a host device through",
    "vhost-scsi": "its disks belong to the host's kernel, and no overlay can be put on them",
    "vhost-user-": "the process behind it serves one guest",
    "vhost-vdpa-": "it passes a host device through",
    "virtio-input-host": "it passes a host device through",
    "x-pci-proxy-dev": "the process behind it serves one guest",
}
_REFUSED_OBJECTS: t.Mapping[str, str] = {
    "cryptodev-vhost-user": "the process behind it serves one guest",
    "dbus-vmstate": "the guest's state would be loaded into the processes on its bus",
    "x-remote-object": "the process behind it serves one guest",
    "x-vfio-user-server": "the process behind it serves one guest",
}
# They hold no state, and write files, or reach the network or the host's input devices.
_DROPPED_OBJECTS = (
    "can-host-",
    "colo-compare",
    "filter-",
    "input-barrier",
    "input-linux",
    "qtest",
)
# A device on the firmware's variables writes them into its file when it is loaded.
_OWN_FILES: t.Mapping[str, tuple[str, ...]] = {"uefi-vars-": ("jsonfile",)}

_MEMORY = "memory-backend-"
# Which RAM blocks these name after their path in QOM, on machine types of 3.1 and before, is the
# same for file and memfd; ram and shm never do (QEMU hw/core/machine.c).
_STAND_IN_MEMORY: t.Mapping[str, str] = {
    "memory-backend-file": "memory-backend-memfd",
    "memory-backend-shm": "memory-backend-ram",
}
_OF_FILES = (
    "align",
    "discard-data",
    "hugetlb",
    "hugetlbsize",
    "mem-path",
    "offset",
    "pmem",
    "prealloc",
    "prealloc-context",
    "prealloc-threads",
    "readonly",
    "rom",
)

# Of a card that -nic makes, and of every backend.
_CARD = ("id", "model", "mac")
_LINKED = ("af-xdp", "dgram", "l2tpv3", "passt", "socket", "stream", "vde")
# A name of its own, or a rule of the host for tap* might attach it to a bridge; the kernel puts in
# a number.
_TAP_NAME = "vmfleet%d"
_TAP = {"type": "tap", "ifname": _TAP_NAME, "script": "no", "downscript": "no"}
_OF_TAPS = ("br", "helper")
# guestfwd=[tcp]:ADDRESS:PORT-WHERE
_FORWARDED = re.compile(r"((?:^|,)guestfwd=[^,-]*)-(?:,,|[^,])*")
_NOWHERE = "-null"

_KEPT_CHARDEVS = ("hub", "null", "qemu-vdagent", "ringbuf")
_CHARDEV_LOG = ("logfile", "logappend")
_PLAIN_DEVICES = ("none", "null")


def rehearsed_chardev(option: Option) -> tuple[str, ...]:
    """A character device that reaches nothing, under the same id; those that are nothing but
    memory stay."""
    value = option.value or ""
    backend = flat_keys(value, "backend").get("backend", "")
    if backend in _KEPT_CHARDEVS:
        return ("-chardev", edited(value, "backend", drop=_CHARDEV_LOG))
    return ("-chardev", edited(value, "backend", keep=("id", "mux"), put={"backend": "null"}))


def rehearsed_port(option: Option) -> tuple[str, ...]:
    """A ``-serial`` or another option that makes a character device for itself."""
    value = option.value or ""
    if value in _PLAIN_DEVICES or value.startswith("chardev:"):
        return option.words
    return (f"-{option.name}", "null")


def rehearsed_object(option: Option) -> tuple[str, ...]:
    """An object, a stand-in for it, or nothing. Raises `Refused`."""
    value = option.value or ""
    keys = flat_keys(value, "qom-type")
    kind = keys.get("qom-type", "")
    if kind in _REFUSED_OBJECTS:
        raise _refused(f"-object {kind} {keys.get('id', '')}", _REFUSED_OBJECTS[kind])
    if kind.startswith(_DROPPED_OBJECTS):
        return ()
    if not kind.startswith(_MEMORY):
        return option.words
    stand_in = _STAND_IN_MEMORY.get(kind, kind)
    return ("-object", edited(value, "qom-type", drop=_OF_FILES, put={"qom-type": stand_in}))


def rehearsed_device(option: Option) -> tuple[str, ...]:
    """A device without the file it would write. Raises `Refused`."""
    value = option.value or ""
    keys = flat_keys(value, "driver")
    kind = keys.get("driver", "")
    for beginning, reason in _REFUSED_DEVICES.items():
        if kind.startswith(beginning):
            raise _refused(f"-device {kind} {keys.get('id', '')}", reason)
    for beginning, files in _OWN_FILES.items():
        if kind.startswith(beginning):
            return ("-device", edited(value, "driver", drop=files))
    return option.words


def rehearsed_audio(option: Option) -> tuple[str, ...]:
    """Sound that goes nowhere, under the same id."""
    driver = {"driver": "none"}
    return (
        f"-{option.name}",
        edited(option.value or "", "driver", keep=("id", "model"), put=driver),
    )


class Network:
    """The network backends of one command line; each is then replaced in turn."""

    def __init__(self, options: t.Iterable[Option]) -> None:
        keys = [flat_keys(option.value, "type") for option in options if option.value]
        self._taken = {entry.get("hubid", "0") for entry in keys}

    def rehearsed(self, option: Option) -> tuple[str, ...]:
        """The words for one ``-netdev``, ``-nic`` or ``-net``. Raises `Refused` for a backend
        without a stand-in."""
        value = option.value or ""
        keys = flat_keys(value, "type")
        kind = keys.get("type", "")
        if kind == "user":
            return (f"-{option.name}", _closed_user_network(value))
        if kind == "tap":
            return (f"-{option.name}", edited(value, "type", drop=_OF_TAPS, put=_TAP))
        if kind == "bridge":
            return (f"-{option.name}", edited(value, "type", keep=_CARD, put=_TAP))
        if kind in _LINKED and not is_on(keys, "vhost-user"):
            return self._unlinked(option)
        if kind in ("hubport", "none") or (kind == "nic" and option.name == "net"):
            return option.words
        raise _refused(
            f"-{option.name} {kind} {keys.get('id', '')}",
            "the process or device behind it serves one guest",
        )

    def _unlinked(self, option: Option) -> tuple[str, ...]:
        if option.name == "net":
            return ()  # the hub of all -net stays, with nothing else on it
        hub = next(str(number) for number in range(1, 1 << 20) if str(number) not in self._taken)
        self._taken.add(hub)
        put = {"type": "hubport", "hubid": hub}
        return (f"-{option.name}", edited(option.value or "", "type", keep=_CARD, put=put))


def _closed_user_network(value: str) -> str:
    """The state of such a network names the guest's connections to its forwarded addresses, so
    these must stay, with nothing behind them (libslirp src/state.c)."""
    described = json_of(value)
    if described is None:
        closed = edited(value, "type", drop=("hostfwd",), put={"restrict": "on"})
        return _FORWARDED.sub(rf"\1{_NOWHERE}", closed)
    forwarded = [
        {**entry, "str": entry["str"].partition("-")[0] + _NOWHERE}
        for entry in described.pop("guestfwd", [])
    ]
    described.pop("hostfwd", None)
    return to_json({**described, "guestfwd": forwarded, "restrict": True})


def _refused(what: str, reason: str) -> Refused:
    return Refused(f"{what.strip()}: {reason}")
