# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What our record in an image says, read back: the one description of a saved guest."""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass, replace

from ._errors import ImageInvalid, NotASaveImage, Refused
from ._qemu._description import Description, Hardware
from ._qemu._fingerprint import Fingerprint
from ._qemu._mapped_argv import ImageBlock
from ._qemu._process import ProcessIdentity
from ._qemu._surroundings import Surroundings
from ._saveimage._domain_xml import identity
from ._saveimage._life import LifeState, life_notes, life_state
from ._saveimage._prefix import Prefix, read_prefix
from ._saveimage._stream import (
    COMPRESSED,
    MAPPED_RAM,
    SEQUENTIAL,
    UNKNOWN,
    StreamHead,
    read_stream_head,
)

_UNKNOWN_DISK = Fingerprint("a disk that this release does not understand", "unknown", {}, {})
QUIT_BY_SAVE = "quit_by_save"
LOADED_INTO = "loaded_into"
CONTINUED = "continued"
# In an image that libvirt reads: a restore through libvirt began to load it.
LOADING = "loading_through_libvirt"
UNDOING = "undoing"
SPENT_BY = "spent_by"
SPENT_FOR_INSPECTION = "save with guest_state running"
SPENT_BY_FAILURE = "failed publish"
SPENT_BY_SUCCESSOR = "a newer save of the guest"


@dataclass(frozen=True)
class SavedImage:
    """What one image tells about itself and its guest.

    ``state``: partial, ready or spent. ``compressor``: format label of a compressed stream, whose
    machine and RAM blocks are not seen from outside. ``ram_blocks``: name and bytes of each block
    in the stream; ``page_blocks``: where their pages lie, empty unless the layout is mapped-ram;
    ``all_ram_names``: every block that the guest had, migrated or not, empty when not recorded.
    ``loaded_into``: the QEMU that a restore put it in. ``quit_by_save``: the save was about to end
    its QEMU; ``meant_to_quit``: it was asked to. ``continued``: the vCPUs were seen to run after a
    restore. ``host``: the host it was saved on; ``launch``: how its QEMU was run there, under
    ``systemd_unit`` if the save was told so, and ``confined_by`` what; ``disks``: its disks' files,
    as they were in the boot ``disks_boot_id``. All None, or empty, without our record.
    ``spent_by``: which save marked it spent.
    """

    path: str
    state: str
    version: int
    image_format: str
    layout: str
    compressor: str | None
    name: str | None
    uuid: str | None
    machine_type: str | None
    was_running: bool
    data_offset_bytes: int
    ram_blocks: tuple[tuple[str, int], ...]
    all_ram_names: frozenset[str]
    qmp_socket: str | None
    saved_from: ProcessIdentity | None
    loaded_into: ProcessIdentity | None
    quit_by_save: bool
    meant_to_quit: bool
    continued: bool
    host: str | None = None
    hardware: Hardware | None = None
    launch: Surroundings | None = None
    systemd_unit: str | None = None
    confined_by: str | None = None
    disks: tuple[Fingerprint, ...] = ()
    disks_boot_id: str | None = None
    spent_by: str | None = None
    page_blocks: tuple[ImageBlock, ...] = ()

    @property
    def description(self) -> Description:
        """What the guest is made of, to be compared with a QEMU."""
        other_ram = self.all_ram_names - {name for name, _length in self.ram_blocks}
        return Description(self.machine_type, self.uuid, self.ram_blocks, other_ram, self.hardware)

    def identity(self) -> dict[str, t.Any]:
        """The part that diff shows: no sizes, no times."""
        return {
            "path": self.path,
            "version": self.version,
            "image_format": self.image_format,
            "layout": self.layout,
            "state": self.state,
        }


def _recorded_ram_names(record: t.Mapping[str, t.Any]) -> frozenset[str]:
    blocks = record.get("ram_blocks")
    if not isinstance(blocks, list):
        return frozenset()
    return frozenset(str(block.get("name")) for block in blocks if isinstance(block, dict))


def _section(record: t.Mapping[str, t.Any], key: str) -> dict[str, t.Any]:
    section = record.get(key)
    return section if isinstance(section, dict) else {}


def _word(section: t.Mapping[str, t.Any], key: str) -> str | None:
    value = section.get(key)
    return value if isinstance(value, str) else None


def _path(section: t.Mapping[str, t.Any], key: str) -> str | None:
    """An absolute path that the kernel can be told; None for anything else."""
    value = _word(section, key)
    if value is None or not os.path.isabs(value) or "\0" in value:
        return None
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return None
    return value


def _recorded_disks(section: t.Mapping[str, t.Any]) -> tuple[Fingerprint, ...]:
    files = section.get("files")
    disks = map(Fingerprint.from_dict, files if isinstance(files, list) else [None])
    # What cannot be understood is a disk that cannot be proved unchanged.
    return tuple(disk or _UNKNOWN_DISK for disk in disks)


def ram_sizes(head: StreamHead) -> tuple[tuple[str, int], ...]:
    """Name and bytes of each RAM block of a stream."""
    return tuple((block.name, block.used_length_bytes) for block in head.ram_blocks)


def _page_blocks(head: StreamHead) -> tuple[ImageBlock, ...]:
    if head.layout != MAPPED_RAM:
        return ()
    return tuple(
        ImageBlock(
            block.name,
            block.used_length_bytes,
            block.page_size_bytes or 0,
            block.pages_offset_bytes or 0,
        )
        for block in head.ram_blocks
    )


def describe(fd: int, path: str) -> SavedImage:
    """Read prefix, record and the head of the stream.

    Of a partial image only the prefix is read: its stream may not be there yet. Raises
    `ImageInvalid` for what is not an image or not a whole one.
    """
    prefix = read_prefix(fd, path)
    state = life_state(prefix)
    header = prefix.header
    head = StreamHead(UNKNOWN)
    if state is not LifeState.PARTIAL:
        head = read_stream_head(fd, path, header.data_offset_bytes, prefix.file_bytes)
    return _described(path, prefix, state, head)


def described_again(fd: int, saved: SavedImage) -> SavedImage:
    """The image after its life went on; what decoding it has shown is kept."""
    fresh = describe(fd, saved.path)
    return replace(fresh, machine_type=saved.machine_type, ram_blocks=saved.ram_blocks)


def _described(
    path: str,
    prefix: Prefix,
    state: LifeState,
    head: StreamHead,
) -> SavedImage:
    header = prefix.header
    record = prefix.record or {}
    source, disks = _section(record, "source"), _section(record, "disks")
    notes = life_notes(prefix)
    xml_name, xml_uuid = identity(prefix.xml) or (None, None)
    return SavedImage(
        path=path,
        state=state.value,
        version=header.version,
        image_format=header.image_format.label,
        layout=SEQUENTIAL if head.layout == COMPRESSED else head.layout,
        compressor=head.compressor,
        name=xml_name or _word(source, "name"),
        uuid=xml_uuid or _word(source, "uuid"),
        machine_type=head.machine,
        was_running=header.was_running,
        data_offset_bytes=header.data_offset_bytes,
        ram_blocks=ram_sizes(head),
        all_ram_names=_recorded_ram_names(record),
        qmp_socket=_path(source, "qmp_socket"),
        saved_from=ProcessIdentity.from_dict(source.get("process")),
        loaded_into=ProcessIdentity.from_dict(notes.get(LOADED_INTO)),
        quit_by_save=notes.get(QUIT_BY_SAVE) is True,
        continued=notes.get(CONTINUED) is True,
        meant_to_quit=record.get("guest_state") == "stopped",
        host=_word(_section(record, "saved_by"), "host"),
        hardware=Hardware.from_dict(record.get("hardware")),
        launch=Surroundings.from_dict(record.get("launch")),
        systemd_unit=_word(record, "systemd_unit"),
        confined_by=_word(record, "confined_by"),
        disks=_recorded_disks(disks) if disks else (),
        disks_boot_id=_word(disks, "boot_id"),
        spent_by=_word(notes, SPENT_BY),
        page_blocks=_page_blocks(head),
    )


def describe_target(path: str) -> SavedImage | None:
    """The image at ``path``; None when nothing is there.

    Raises `Refused` when something else is there: it is never replaced, whatever is asked for.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Refused(
            f"{path} exists, but cannot be read as a save image: {exc.strerror}."
        ) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(f"{path} exists and is not a regular file; it will not be replaced.")
        return describe(fd, path)
    except NotASaveImage as exc:
        raise Refused(f"{path} exists and is not a save image; it will not be replaced.") from exc
    except ImageInvalid as exc:
        raise Refused(
            f"{exc.message}. It will not be replaced; remove it by hand if nobody needs it."
        ) from exc
    finally:
        os.close(fd)
