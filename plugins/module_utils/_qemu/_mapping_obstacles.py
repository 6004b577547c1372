# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Why a guest's RAM cannot be a private mapping of a file: who shares it, and who pins it."""

from __future__ import annotations

import typing as t

from ._command_line import Option, json_of
from ._option_value import flat_keys, is_on

_PINS = "it pins all of the guest's RAM, which would read the whole image at once"
_SHARES = "another process works in the guest's RAM"
_HYPERVISOR = "the hypervisor has the guest's RAM"
_GIVES_BACK = "it gives RAM back page by page, which a mapped file does not take"
# Devices, by the beginning of their type.
_DEVICES: t.Mapping[str, str] = {
    "vfio-": _PINS,
    "vhost-user-": _SHARES,
    "vhost-vdpa-": _PINS,
    "virtio-mem-": _GIVES_BACK,
    "x-pci-proxy-dev": _SHARES,
}
_NETWORKS: t.Mapping[str, str] = {"vhost-user": _SHARES, "vhost-vdpa": _PINS}
_OBJECTS: t.Mapping[str, str] = {
    "cryptodev-vhost-user": _SHARES,
    "x-remote-object": _SHARES,
    "x-vfio-user-server": _SHARES,
}
# Block drivers that hand the guest's RAM to a device or to another process (QEMU block/nvme.c,
# block/blkio.c).
_DRIVERS: t.Mapping[str, str] = {
    "nvme": _PINS,
    "nvme-io_uring": _PINS,
    "virtio-blk-vfio-pci": _PINS,
    "virtio-blk-vhost-user": _SHARES,
    "virtio-blk-vhost-vdpa": _PINS,
}
_CONFIDENTIAL = ("confidential-guest-support", "memory-encryption")
_BALLOON = "virtio-balloon"
_JSON = "json:"
_OFF = ("off", "no", "false", "n")


def obstacles(options: t.Iterable[Option]) -> t.Iterator[str]:
    """Each in words, without quoting values that may hold secrets."""
    for option in options:
        if option.name == "mem-prealloc":
            yield "-mem-prealloc asks for all of it at the start"
        look = _LOOKS.get(option.name or "")
        value = option.words[0] if option.name is None else option.value
        reason = look(value) if look is not None and value is not None else None
        if reason is not None:
            yield f"-{option.name} {reason}" if option.name else f"the first disk, {reason}"


def cannot_shrink(options: t.Iterable[Option]) -> bool:
    """Whether the guest has a balloon, which gives nothing back while its RAM is mapped: QEMU
    refuses to discard pages of a file that it only reads (system/physmem.c)."""
    return any(
        option.name == "device"
        and flat_keys(option.value or "", "driver").get("driver", "").startswith(_BALLOON)
        for option in options
    )


def backend_obstacle(keys: t.Mapping[str, str]) -> str | None:
    """Why a memory backend is not plain private memory; None when it is. ``keys``: its flattened
    properties."""
    kind = keys.get("qom-type", "")
    if kind == "memory-backend-file":
        return "its RAM lies in a file already, or in huge pages"
    if kind not in ("memory-backend-ram", "memory-backend-memfd"):
        return f"{kind} is not plain private memory"
    shared = is_on(keys, "share")
    if kind == "memory-backend-memfd" and keys.get("share") not in _OFF:
        shared = True  # the default of memfd (QEMU backends/hostmem-memfd.c)
    if shared:
        return "it is shared"
    if is_on(keys, "hugetlb") or "hugetlbsize" in keys:
        return "it is made of huge pages"
    if is_on(keys, "prealloc"):
        return "it is preallocated: all of it is asked for at the start"
    return None


def _device(value: str) -> str | None:
    return _by_beginning(flat_keys(value, "driver").get("driver", ""), _DEVICES)


def _network(value: str) -> str | None:
    kind = flat_keys(value, "type").get("type", "")
    return f"{kind}: {_NETWORKS[kind]}" if kind in _NETWORKS else None


def _object(value: str) -> str | None:
    kind = flat_keys(value, "qom-type").get("qom-type", "")
    return f"{kind}: {_OBJECTS[kind]}" if kind in _OBJECTS else None


def _disk(value: str) -> str | None:
    return next(_drivers(flat_keys(value, "file")), None)


def _disk_file(value: str) -> str | None:
    """Of an option whose value is nothing but a file name, commas and all."""
    return next(_drivers({"file": value}), None)


def _drivers(keys: t.Mapping[str, str]) -> t.Iterator[str]:
    for key, word in keys.items():
        if word.startswith(_JSON):  # a file name may be a whole description
            if json_of(word[len(_JSON) :]) is not None:
                yield from _drivers(flat_keys(word[len(_JSON) :], ""))
            continue
        names_driver = key == "driver" or key.endswith(".driver")
        kind = "nvme" if word.startswith("nvme://") else word if names_driver else ""
        if kind in _DRIVERS:
            yield f"{kind}: {_DRIVERS[kind]}"


def _machine(value: str) -> str | None:
    keys = flat_keys(value, "type")
    if any(key in keys for key in _CONFIDENTIAL):
        return "encrypts the guest's RAM"
    # Accelerators are tried in turn.
    if "xen" in keys.get("accel", "").split(":") or keys.get("type", "").startswith("xen"):
        return f"xen: {_HYPERVISOR}"
    return None


def _overcommit(value: str) -> str | None:
    lock = flat_keys(value, "").get("mem-lock", "off")
    return None if lock in _OFF else f"mem-lock={lock}: {_PINS}"


def _accelerator(value: str) -> str | None:
    kind = flat_keys(value, "accel").get("accel", "")
    return f"{kind}: {_HYPERVISOR}" if kind == "xen" else None


def _memory_path(_value: str) -> str:
    return "puts it into files already"


def _configuration(_value: str) -> str:
    return "may bring along anything: its file is not looked at"


def _by_beginning(kind: str, table: t.Mapping[str, str]) -> str | None:
    for beginning, reason in table.items():
        if kind.startswith(beginning):
            return f"{kind}: {reason}"
    return None


_LOOKS: t.Mapping[str, t.Callable[[str], str | None]] = {
    "M": _machine,
    "": _disk_file,
    "accel": _accelerator,
    "blockdev": _disk,
    "cdrom": _disk_file,
    "device": _device,
    "drive": _disk,
    "fda": _disk_file,
    "fdb": _disk_file,
    "hda": _disk_file,
    "hdb": _disk_file,
    "hdc": _disk_file,
    "hdd": _disk_file,
    "machine": _machine,
    "mem-path": _memory_path,
    "mtdblock": _disk_file,
    "net": _network,
    "netdev": _network,
    "nic": _network,
    "object": _object,
    "overcommit": _overcommit,
    "pflash": _disk_file,
    "readconfig": _configuration,
    "sd": _disk_file,
}
