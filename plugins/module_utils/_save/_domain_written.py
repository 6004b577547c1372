# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What is left to do with a file that libvirt has written, before it gets its name; the same
whether the run that asked for it lives or not."""

from __future__ import annotations

import os
import typing as t

from .._errors import ImageInvalid, StoreError
from .._image_record import describe
from .._qemu._fingerprint import Fingerprint, fingerprint
from .._saveimage._domain_machine import DomainMachine, machine_of
from .._saveimage._foreign_record import add_record
from .._saveimage._header import MAGIC_PARTIAL
from .._saveimage._prefix import read_prefix
from .._saveimage._publish import PartialImage
from .._saveimage._relabel import stamp
from ._record import disks_record

_MAGIC_BYTES = 16


def is_whole(image: PartialImage, uuid: str) -> bool:
    """Whether libvirt finished the file: its magic is complete only once all is written."""
    try:
        written = describe(image.fd, image.path)
    except (ImageInvalid, OSError):
        return False
    return (written.state, written.uuid) == ("ready", uuid)


def may_be_whole(image: PartialImage) -> bool:
    """Whether the file could be all there is of a guest, even where it cannot be understood: no
    reason to doubt it is one to remove it."""
    try:
        magic = os.pread(image.fd, _MAGIC_BYTES, 0)
    except OSError:
        return True
    return magic.strip(b"\0") != b"" and not magic.startswith(MAGIC_PARTIAL)


def machine_in(image: PartialImage) -> DomainMachine | None:
    """The machine that the image's own description tells of."""
    return machine_of(read_prefix(image.fd, image.path).xml)


def look_at_disks(machine: DomainMachine | None) -> list[Fingerprint]:
    """What its disks are like now."""
    files = sorted(machine.disk_files) if machine is not None else []
    return [*map(fingerprint, files)]


def written_since(image: PartialImage, machine: DomainMachine | None) -> list[str]:
    """Disks that were written after the image: the guest has run since."""
    end = os.fstat(image.fd).st_mtime_ns
    found = []
    for path in sorted(machine.disk_files) if machine is not None else []:
        try:
            if os.stat(path).st_mtime_ns > end:
                found.append(path)
        except OSError:  # its restore will tell
            continue
    return found


def note_disks(
    image: PartialImage, disks: t.Sequence[Fingerprint], machine: DomainMachine | None
) -> list[str]:
    """Put into the image what its disks are like, and flush it; returns warnings."""
    others = machine is None or machine.other_disks
    warnings = []
    if others:
        warnings.append(
            "The domain has disks that are no files or devices of this host; its restore will not "
            "see whether those have changed."
        )
    try:
        if add_record(image.fd, image.path, disks_record(disks, others=others)):
            image.sync()
            return warnings
    except StoreError:
        pass
    return [
        *warnings,
        "What the domain's disks are like could not be recorded in the image, so that its restore "
        "will not see whether they have changed.",
    ]


def make_version_3(image: PartialImage) -> str | None:
    """Stamp it; a warning where that failed."""
    try:
        stamp(image.fd, image.path)
    except (StoreError, ImageInvalid) as exc:
        return f"The image is of version 2, sparse, and whole: {exc.message}"
    return None
