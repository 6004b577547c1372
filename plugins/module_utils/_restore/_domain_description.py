# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether the description in an image tells libvirt of the machine that was saved."""

from __future__ import annotations

from .._errors import Refused
from .._image_record import SavedImage
from .._saveimage._domain_machine import machine_of, own_memory_bytes
from .._saveimage._domain_xml import is_minimal
from .._saveimage._stream import MAPPED_RAM


def check_described(xml: str, image: SavedImage) -> None:
    """Raise `Refused` where libvirt would build another machine, or none: it starts QEMU from the
    image's description, and a mapped-ram load notices neither more RAM (T5) nor RAM that is not
    fresh (T4)."""
    if is_minimal(xml):
        raise Refused(
            f"The image {image.path} was saved over QMP without a description for libvirt, which "
            "could not know its devices. Restore it over QMP, or save it again with "
            "domain_xml_file. Nothing was done."
        )
    machine = machine_of(xml)
    if machine is None or image.layout != MAPPED_RAM:
        return
    if machine.memory_files:
        raise Refused(
            f"The image {image.path} is mapped-ram, and {', '.join(machine.memory_files)} holds "
            "RAM of the domain: what is in a file would stay wherever the guest's page was zero. "
            "Restore it over QMP with reset_shared_memory."
        )
    saved, described = own_memory_bytes(image.ram_blocks), machine.memory_bytes
    if saved is not None and described is not None and _mib(saved) != _mib(described):
        raise Refused(
            f"The description in the image {image.path} has {_mib(described)} MiB of "
            f"RAM, the guest was saved with {_mib(saved)}: it was edited since. libvirt would load "
            "it into a machine of another size without noticing. Put the size back with virsh "
            "save-image-edit."
        )


def _mib(count_bytes: int) -> int:
    return -(-count_bytes // (1 << 20))  # libvirt rounds up
