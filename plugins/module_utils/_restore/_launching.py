# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which QEMU a restore would start, and how: pure functions from image and options."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._errors import Refused
from .._image_record import SavedImage
from .._qemu._argv import incoming_argv
from .._qemu._mapped_argv import ImageBlock, MappedArgv, map_ram
from .._qemu._recorded_argv import relaunch
from .._qemu._surroundings import Surroundings
from ._request import LAZY, RestoreRequest

ROOT = 0


@dataclass(frozen=True)
class Launch:
    """``argv``: complete, so that QEMU waits on ``qmp_socket``; ``own_argv``: the same without the
    words that make it wait, ``changes``: what was changed in it, in sentences. ``surroundings``:
    how the recorded QEMU was run, None where argv was given and runs as this run does.
    ``systemd_unit``: the unit that shall run it; ``unit_recorded``: the image names it. ``mapped``:
    RAM blocks that are mapped from the image; in ``own_argv`` they are not."""

    argv: tuple[str, ...]
    own_argv: tuple[str, ...]
    changes: tuple[str, ...]
    qmp_socket: str
    surroundings: Surroundings | None
    systemd_unit: str | None
    unit_recorded: bool
    mapped: tuple[ImageBlock, ...] = ()

    @property
    def mapped_bytes(self) -> int:
        """RAM that is mapped from the image."""
        return sum(block.length_bytes for block in self.mapped)

    @property
    def recorded(self) -> bool:
        """Whether the image decides what runs."""
        return self.surroundings is not None

    @property
    def directory(self) -> str:
        """Where relative names in it start."""
        return self.surroundings.cwd if self.surroundings is not None else os.getcwd()

    @property
    def origin(self) -> str:
        """For the plan."""
        return "recorded" if self.recorded else "given"


def choose_socket(saved: SavedImage, request: RestoreRequest) -> str:
    """Where the QEMU listens: as asked, else where the guest's did. Raises `Refused`."""
    found = request.qmp_socket or saved.qmp_socket
    if found is None:
        raise Refused(
            f"The image {request.path} does not tell where its guest's monitor was: it was not "
            "written by this collection, or virsh save-image-define wiped its record. Give "
            "qmp_socket."
        )
    return found


def choose_unit(saved: SavedImage, request: RestoreRequest) -> str | None:
    """The unit that runs the guest: as asked, else as the save was told; an empty name is none."""
    asked = request.systemd_unit
    return (saved.systemd_unit if asked is None else asked) or None


def choose_launch(saved: SavedImage, request: RestoreRequest, qmp_socket: str) -> Launch | None:
    """The QEMU to start where none waits; None when nothing tells how.

    Raises `Refused` when the recorded command line cannot be used again, or the guest's RAM cannot
    be mapped as asked.
    """
    unit = choose_unit(saved, request)
    unit_recorded = unit is not None and request.systemd_unit is None
    if request.argv is not None:
        ram = _with_its_ram(request.argv, saved, request)
        words, changes = incoming_argv(ram.argv, qmp_socket)
        return Launch(
            tuple(words),
            request.argv,
            ram.changes + changes,
            qmp_socket,
            None,
            unit,
            unit_recorded,
            ram.blocks,
        )
    recorded = saved.launch
    if recorded is None:
        return None
    again = relaunch(
        recorded.argv,
        program=recorded.executable,
        machine_type=saved.machine_type or "",
        changed_user=recorded.user_id != ROOT,
    )
    ram = _with_its_ram(again.argv, saved, request)
    words, changes = incoming_argv(ram.argv, qmp_socket)
    return Launch(
        tuple(words),
        again.argv,
        again.changes + ram.changes + changes,
        qmp_socket,
        recorded,
        unit,
        unit_recorded,
        ram.blocks,
    )


def _with_its_ram(argv: tuple[str, ...], saved: SavedImage, request: RestoreRequest) -> MappedArgv:
    if request.load != LAZY:
        return MappedArgv(argv, (), ())
    page = os.sysconf("SC_PAGE_SIZE")
    return map_ram(argv, request.path, saved.page_blocks, host_page_bytes=page)


def launch_or_none(saved: SavedImage, request: RestoreRequest, qmp_socket: str) -> Launch | None:
    """What a run which died would have started; None where there is none."""
    try:
        return choose_launch(saved, request, qmp_socket)
    except Refused:
        return None
