# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What there is to know about the save images of a file or a directory, without a guest.

An image that is damaged or cannot be read is described as far as it goes, with its problems; it
never hides the others.
"""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import asdict, dataclass

from ._errors import ImageInvalid, NotASaveImage, Refused
from ._image_record import SavedImage, describe
from ._qemu._process import is_alive
from ._saveimage._domain_xml import redact
from ._saveimage._header import feature_names
from ._saveimage._prefix import Prefix, read_prefix
from ._saveimage._protection import protection
from ._saveimage._verify import Structure, verify_structure

INVALID = "invalid"
UNREADABLE = "unreadable"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK_UNIT_BYTES = 512


@dataclass(frozen=True)
class Listing:
    """``images``: as documented under RETURN of qemu_saveimage_info; ``skipped_files``: files
    without a save magic."""

    images: tuple[dict[str, t.Any], ...]
    skipped_files: int


def list_images(path: str, *, read_memory_map: bool) -> Listing:
    """Describe the image at ``path``, or every image in the directory ``path``, by name.

    Raises `Refused` when ``path`` is there but cannot be read.
    """
    try:
        names = sorted(os.listdir(path))
        paths = [os.path.join(path, name) for name in names]
    except NotADirectoryError:
        paths = [path]
    except FileNotFoundError:
        paths = []
    except OSError as exc:
        raise Refused(f"{path} cannot be read: {exc.strerror}.") from exc
    images, skipped = [], 0
    for candidate in paths:
        try:
            image = _read(candidate, read_memory_map)
        except NotASaveImage:
            skipped += 1
        else:
            images.append(image)
    return Listing(tuple(images), skipped)


def _read(path: str, read_memory_map: bool) -> dict[str, t.Any]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise NotASaveImage(path, 0, "not a regular file")
        fd = os.open(path, _OPEN)
    except FileNotFoundError as exc:  # removed just now
        raise NotASaveImage(path, 0, "it is gone") from exc
    except OSError as exc:
        return {"path": path, **_unreadable(f"{path} cannot be opened", exc)}
    try:
        return {"path": path, **_describe(fd, path, read_memory_map)}
    finally:
        os.close(fd)


def _describe(fd: int, path: str, read_memory_map: bool) -> dict[str, t.Any]:
    facts: dict[str, t.Any] = {}
    try:
        facts.update(_sizes(os.fstat(fd)))
        facts.update(_prefix_facts(read_prefix(fd, path)))
        saved = describe(fd, path)
        facts.update(_saved_facts(saved), **_use_facts(fd, saved))
        if read_memory_map and saved.state != "partial":
            facts.update(_memory_map(verify_structure(fd, path)))
    except NotASaveImage:
        raise
    except ImageInvalid as exc:
        facts.update(state=INVALID, problems=[exc.message])
    except OSError as exc:
        facts.update(_unreadable(f"{path} cannot be read", exc))
    return facts


def _unreadable(what: str, exc: OSError) -> dict[str, t.Any]:
    return {"state": UNREADABLE, "problems": [f"{what}: {exc.strerror}"]}


def _sizes(status: os.stat_result) -> dict[str, t.Any]:
    return {
        "apparent_bytes": status.st_size,
        "allocated_bytes": status.st_blocks * _BLOCK_UNIT_BYTES,
    }


def _prefix_facts(prefix: Prefix) -> dict[str, t.Any]:
    header, record = prefix.header, prefix.record or {}
    saved_by, source = record.get("saved_by"), record.get("source")
    return {
        "problems": [],
        "version": header.version,
        "image_format": header.image_format.label,
        "features": feature_names(header.features),
        "byte_order": header.byte_order,
        "was_running": header.was_running,
        "data_offset_bytes": header.data_offset_bytes,
        "domain_xml": redact(prefix.xml),
        "recorded": prefix.record is not None,
        "collection_version": _text(saved_by, "collection_version"),
        "saved_at": _text(saved_by, "started_at"),
        "qemu_version": _text(source, "qemu_version"),
    }


def _text(section: object, key: str) -> str | None:
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, str) else None


def _saved_facts(saved: SavedImage) -> dict[str, t.Any]:
    return {
        "state": saved.state,
        "layout": saved.layout,
        "compressor": saved.compressor,
        "name": saved.name,
        "uuid": saved.uuid,
        "machine_type": saved.machine_type,
        "qmp_socket": saved.qmp_socket,
        "ram_bytes": sum(length for _name, length in saved.ram_blocks),
    }


def _use_facts(fd: int, saved: SavedImage) -> dict[str, t.Any]:
    """Whether a guest runs from the image: it was made read-only for that."""
    way, holder = protection(fd), saved.loaded_into
    lives = way is not None and holder is not None and is_alive(holder)
    return {
        "write_protected": way,
        "mapped_by_pid": holder.pid if lives and holder is not None else None,
    }


def _memory_map(structure: Structure) -> dict[str, t.Any]:
    counts: list[dict[str, t.Any]] = [
        {"present_pages": count.present, "zero_pages": count.zero} for count in structure.pages
    ] or [{"present_pages": None, "zero_pages": None} for _block in structure.head.ram_blocks]
    return {
        "present_pages": structure.present_pages,
        "zero_pages": structure.zero_pages,
        "capabilities": list(structure.head.capabilities),
        "devices": list(structure.tail.devices) if structure.tail else [],
        "ram_blocks": [
            dict(asdict(block), **count) for block, count in zip(structure.head.ram_blocks, counts)
        ],
    }
