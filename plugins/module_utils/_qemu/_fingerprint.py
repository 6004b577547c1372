# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a disk's file or device is like, so that a restore can tell whether it changed.

Nothing here reads a whole disk. A file shows a write by its mtime, a device within one boot by the
kernel's count of written sectors; a sample of blocks is what remains of a device after a reboot.
Device numbers count within one boot only: those of device mapper, NVMe, NFS and btrfs are given
out anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import typing as t
from dataclasses import asdict, dataclass

from ._disk_header import header_facts
from ._raw_read import read_blocks

FILE = "file"
BLOCK = "block"
OTHER = "other"
MISSING = "missing"
UNREADABLE = "unreadable"
SAMPLE_BLOCKS = 32
_HEADER_BYTES = 4096
_SAMPLE_BYTES = 4096
# What sysfs tells of a device itself, not of its number (Documentation/ABI in the kernel's tree).
_IDENTITIES = ("dm/uuid", "md/uuid", "wwid", "device/wwid", "device/serial", "serial", "partition")
# Fields of /sys/dev/block/MAJ:MIN/stat, counted from 0 (Documentation/block/stat.rst).
_COUNTS: t.Mapping[str, int] = {"written_sectors": 6, "discarded_sectors": 13}

Fact = t.Union[str, int]


@dataclass(frozen=True)
class Fingerprint:
    """``path``: absolute, as QEMU calls it. ``kind``: one of the words above. ``facts``: what lasts
    over a reboot; ``boot_facts``: what can be compared within one boot only."""

    path: str
    kind: str
    facts: t.Mapping[str, Fact]
    boot_facts: t.Mapping[str, Fact]

    def as_dict(self) -> dict[str, t.Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Fingerprint | None:
        """What `as_dict` wrote, or None when ``data`` is not that."""
        if not isinstance(data, dict):
            return None
        path, kind = data.get("path"), data.get("kind")
        facts, boot_facts = data.get("facts"), data.get("boot_facts")
        if not (isinstance(path, str) and isinstance(kind, str)):
            return None
        if not (_are_facts(facts) and _are_facts(boot_facts)):
            return None
        return cls(
            path, kind, t.cast("dict[str, Fact]", facts), t.cast("dict[str, Fact]", boot_facts)
        )


def _are_facts(data: object) -> bool:
    return isinstance(data, dict) and all(
        isinstance(name, str) and isinstance(value, (str, int)) for name, value in data.items()
    )


def fingerprint(path: str, seen_at: str | None = None) -> Fingerprint:
    """What the disk at ``path`` is like now. ``seen_at``: the same file as it is reached from here,
    through another process's mount namespace for instance. Never raises for what the file is."""
    place = seen_at or path
    try:
        # To open a device that is no disk can do something (a watchdog, a tape).
        if not _is_disk(os.stat(place).st_mode):
            return Fingerprint(path, OTHER, {}, {})
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Fingerprint(path, MISSING, {}, {})
    except OSError as exc:
        return Fingerprint(path, UNREADABLE, {"reason": exc.strerror or str(exc)}, {})
    except ValueError as exc:  # a zero byte or half a character, which no file's name can have
        return Fingerprint(path, UNREADABLE, {"reason": str(exc)}, {})
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return Fingerprint(path, FILE, _file_facts(fd, status), _mount_facts(status))
        if stat.S_ISBLK(status.st_mode):
            return Fingerprint(path, BLOCK, *_device_facts(fd, status.st_rdev))
        return Fingerprint(path, OTHER, {}, {})
    except OSError as exc:
        return Fingerprint(path, UNREADABLE, {"reason": exc.strerror or str(exc)}, {})
    finally:
        os.close(fd)


def _is_disk(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _mount_facts(status: os.stat_result) -> dict[str, Fact]:
    # A filesystem without a device of its own (NFS, btrfs) gets another number at each mount.
    return {"device": status.st_dev} if os.major(status.st_dev) else {}


def _file_facts(fd: int, status: os.stat_result) -> dict[str, Fact]:
    return {
        "inode": status.st_ino,
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        **_content_facts(fd, status.st_size, direct=False),
    }


def _device_facts(fd: int, number: int) -> tuple[dict[str, Fact], dict[str, Fact]]:
    size = os.lseek(fd, 0, os.SEEK_END)
    with contextlib.suppress(OSError):  # what only the page cache holds is not counted yet
        os.fsync(fd)
    directory = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    facts: dict[str, Fact] = {"size_bytes": size}
    for name in _IDENTITIES:
        known = _read_line(f"{directory}/{name}")
        if known:
            facts[name.replace("/", "_")] = known
    boot_facts: dict[str, Fact] = {"device": number}
    counted = _read_line(f"{directory}/stat").split()
    boot_facts.update({name: int(counted[at]) for name, at in _COUNTS.items() if at < len(counted)})
    # A loop device keeps its counts over a detaching, during which its file may be written to.
    attached = _read_line(f"{directory}/diskseq")
    if attached:
        boot_facts["diskseq"] = attached
    # Past the page cache, which may be older than a disk that other hosts write to as well.
    facts.update(_content_facts(fd, size, direct=True))
    return facts, boot_facts


def _content_facts(fd: int, size: int, *, direct: bool) -> dict[str, Fact]:
    header, *blocks = read_blocks(fd, sample_offsets(size), _SAMPLE_BYTES, direct=direct)
    digest = hashlib.sha256(header)
    for block in blocks:
        digest.update(block)
    return {**header_facts(header[:_HEADER_BYTES]), "sample_sha256": digest.hexdigest()}


def sample_offsets(size_bytes: int) -> tuple[int, ...]:
    """Where the sample's blocks of 4 KiB start: the first two MiB hold partition tables and the
    headers of filesystems, the rest lies evenly up to the last."""
    last = max(0, size_bytes - 1) // _SAMPLE_BYTES * _SAMPLE_BYTES
    even = [last * step // (SAMPLE_BLOCKS - 3) for step in range(SAMPLE_BLOCKS - 2)]
    offsets = {offset // _SAMPLE_BYTES * _SAMPLE_BYTES for offset in (0, 1 << 20, 2 << 20, *even)}
    return tuple(sorted(offset for offset in offsets if offset <= last))


def _read_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            return source.read().strip()
    except OSError:
        return ""


def changes(then: Fingerprint, now: Fingerprint, *, same_boot: bool) -> tuple[str, ...]:
    """What differs, each with the file, the field and both values, but those of checksums: whoever
    wrote the record could have any file's told. What could not be read at the save is not compared.
    """
    if then.kind in (UNREADABLE, OTHER):
        return ()
    if now.kind != then.kind:
        reason = f" ({now.facts['reason']})" if "reason" in now.facts else ""
        return (f"{then.path}: it was {_named(then)} and is {_named(now)}{reason}",)
    was, by_now = dict(then.facts), dict(now.facts)
    if same_boot:
        was.update(then.boot_facts)
        by_now.update(now.boot_facts)
    return tuple(
        f"{then.path}: {name} differs"
        if name.endswith("sha256")
        else f"{then.path}: {name} was {was[name]} and is {by_now.get(name, 'unknown')}"
        for name in was
        if was[name] != by_now.get(name)
    )


def _named(disk: Fingerprint) -> str:
    return _KINDS.get(disk.kind, disk.kind)


_KINDS: t.Mapping[str, str] = {
    FILE: "a file",
    BLOCK: "a block device",
    OTHER: "something else",
    MISSING: "missing",
    UNREADABLE: "unreadable",
}
