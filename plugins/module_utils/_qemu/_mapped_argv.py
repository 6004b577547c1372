# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A command line whose RAM is a private mapping of a save image.

The kernel reads a page from the image when the guest touches it and copies it when the guest
writes it; the file never changes (QEMU backends/hostmem-file.c, docs/system/vm-templating.rst).
Every memory backend of the guest is mapped, and the machine's own RAM gets one; all other RAM
blocks (firmware, video memory, tables) are small and loaded as ever.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import Refused
from ._command_line import Option, json_of, options_of, with_value
from ._mapping_obstacles import backend_obstacle, obstacles
from ._option_value import edited, flat_keys, is_on, to_json

MEMORY = "memory-backend-"
_FILE = "memory-backend-file"
_RAM = "memory-backend-ram"
_MACHINE = ("machine", "M")
_OBJECTS = "/objects/"
# What makes a backend a private view of a file that stays as it is; the last one names the RAM
# block after the id alone, or after the id's path, as machine types up to 3.1 did for some.
_CANONICAL = "x-use-canonical-path-for-ramblock-id"
NEEDED_PROPERTIES = ("mem-path", "offset", "readonly", "rom", "share", "size", _CANONICAL)
# Of memfd; a file has none of them.
_NOT_OF_FILES = ("hugetlb", "hugetlbsize", "prealloc", "seal")
# And what plain RAM has none of.
_ONLY_OF_FILES = (
    "align",
    "discard-data",
    "mem-path",
    "offset",
    "pmem",
    "readonly",
    "rom",
    "share",
)


@dataclass(frozen=True)
class ImageBlock:
    """A RAM block of the image; its pages lie in order from ``pages_offset_bytes`` on."""

    name: str
    length_bytes: int
    page_size_bytes: int
    pages_offset_bytes: int


@dataclass(frozen=True)
class MappedArgv:
    """``argv``: the rewritten words; ``blocks``: those that are mapped; ``changes``: sentences."""

    argv: tuple[str, ...]
    blocks: tuple[ImageBlock, ...]
    changes: tuple[str, ...]


def map_ram(
    argv: t.Sequence[str],
    image_path: str,
    blocks: t.Sequence[ImageBlock],
    *,
    host_page_bytes: int,
) -> MappedArgv:
    """``argv`` with the RAM of its guest mapped from the image.

    Raises `Refused` with every reason why it cannot be.
    """
    options = list(options_of(argv[1:]))
    mapping = _Mapping(image_path, blocks, host_page_bytes)
    problems = list(obstacles(options))
    words = [argv[0]]
    for option in options:
        words += mapping.mapped(option)
    if not _names_its_ram(options):
        words += mapping.machine_ram()
    problems += mapping.problems
    if problems:
        raise Refused(
            "The guest's RAM cannot be mapped from its image: "
            + "; ".join(problems)
            + ". Set load to eager."
        )
    return MappedArgv(tuple(words), tuple(mapping.done), tuple(mapping.changes))


class _Mapping:
    def __init__(self, path: str, blocks: t.Sequence[ImageBlock], host_page_bytes: int) -> None:
        self._path = path
        self._blocks = {block.name: block for block in blocks}
        self._host_page_bytes = host_page_bytes
        self.done: list[ImageBlock] = []
        self.changes: list[str] = []
        self.problems: list[str] = []

    def mapped(self, option: Option) -> tuple[str, ...]:
        """The words of one option; those of a memory backend name the image."""
        if option.name != "object" or option.value is None:
            return option.words
        keys = flat_keys(option.value, "qom-type")
        kind, name = keys.get("qom-type", ""), keys.get("id", "")
        if not kind.startswith(MEMORY):
            return option.words
        reason = backend_obstacle(keys)
        block = self._blocks.get(name) or self._blocks.get(_OBJECTS + name)
        if reason is None and block is None:
            reason = "the image has no RAM block of that name"
        if reason is not None or block is None:
            self.problems.append(f"memory backend {name}: {reason}")
            return option.words
        self._map(block)
        return with_value(option, self._backed(option.value, block)).words

    def machine_ram(self) -> tuple[str, ...]:
        """A backend for RAM that the machine would allocate by itself: of the blocks that belong to
        no device and to no backend, the largest (QEMU hw/core/machine.c)."""
        own = [
            block
            for block in self._blocks.values()
            if not block.name.startswith("/") and "/" not in block.name and block not in self.done
        ]
        if not own:
            self.problems.append("the image has no RAM block that is the machine's own")
            return ()
        largest = max(one.length_bytes for one in own)
        found = [one for one in own if one.length_bytes == largest]
        if len(found) > 1:  # beside flash of the same size
            found = [one for one in found if one.name.endswith("ram")]
        if len(found) != 1:
            self.problems.append(
                f"which of the RAM blocks of {largest} bytes is the machine's own cannot be told"
            )
            return ()
        block = found[0]
        self._map(block)
        size = {"qom-type": _RAM, "id": block.name, "size": str(block.length_bytes)}
        value = ",".join([size.pop("qom-type"), *(f"{key}={word}" for key, word in size.items())])
        return (
            "-object",
            self._backed(value, block),
            "-machine",
            f"memory-backend={block.name}",
        )

    def _map(self, block: ImageBlock) -> None:
        host = self._host_page_bytes
        if block.page_size_bytes > host:
            self.problems.append(
                f"RAM block {block.name} has pages of {block.page_size_bytes} bytes, this host "
                f"maps files in pages of {host}"
            )
        elif block.pages_offset_bytes % host or block.length_bytes % host:
            self.problems.append(
                f"RAM block {block.name} of {block.length_bytes} bytes lies at offset "
                f"{block.pages_offset_bytes} of the image, which this host's pages of {host} bytes "
                "do not fit"
            )
        self.done.append(block)
        self.changes.append(f"Mapped RAM block {block.name} from {self._path}.")

    def _backed(self, value: str, block: ImageBlock) -> str:
        canonical = block.name.startswith(_OBJECTS)
        described = json_of(value)
        if described is not None:
            kept = {key: one for key, one in described.items() if key not in _NOT_OF_FILES}
            typed: dict[str, t.Any] = {
                "qom-type": _FILE,
                "mem-path": self._path,
                "offset": block.pages_offset_bytes,
                "share": False,
                "readonly": True,
                "rom": "off",
                _CANONICAL: canonical,
            }
            return to_json({**kept, **typed})
        words = {
            "qom-type": _FILE,
            "mem-path": self._path,
            "offset": str(block.pages_offset_bytes),
            "share": "off",
            "readonly": "on",
            "rom": "off",
            _CANONICAL: "on" if canonical else "off",
        }
        return edited(value, "qom-type", drop=_NOT_OF_FILES, put=words)


def _names_its_ram(options: t.Iterable[Option]) -> bool:
    """Whether the command line says which backends are the machine's RAM."""
    for option in options:
        if option.name in _MACHINE and "memory-backend" in flat_keys(option.value or "", "type"):
            return True
        if option.name == "numa" and "memdev" in flat_keys(option.value or "", "type"):
            return True
    return False


def plain_again(options: t.Iterable[Option], changes: list[str]) -> list[Option]:
    """Recorded options of a guest whose RAM was mapped when it was saved, with plain RAM: the file
    may be gone, and all that differed from it is in the new image."""
    kept: list[Option] = []
    for option in options:
        value = option.value or ""
        keys = flat_keys(value, "qom-type") if option.name == "object" else {}
        if keys.get("qom-type") == _FILE and _is_private_view(keys):
            drop = _ONLY_OF_FILES
            value = edited(value, "qom-type", drop=drop, put={"qom-type": _RAM})
            changes.append(f"Made memory backend {keys.get('id', '')} plain RAM: it was a mapping.")
            option = with_value(option, value)
        kept.append(option)
    return kept


def _is_private_view(keys: t.Mapping[str, str]) -> bool:
    """readonly without rom is writable RAM that begins with the content of a file."""
    return is_on(keys, "readonly") and keys.get("rom") == "off" and not is_on(keys, "share")
