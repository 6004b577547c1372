# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Gathering from the host what a plan is made from: qemu.conf, the domain XML, the store."""

from __future__ import annotations

import os
from dataclasses import replace

from .._errors import Refused, StoreError
from .._image_record import SavedImage
from .._lent_image import look_at_access
from .._libvirt._definitions import definitions, definitions_directory
from .._libvirt._qemu_conf import QemuConf, read_knobs
from .._qemu._guest import Guest
from .._saveimage._compressors import compressor_of, find_program
from .._saveimage._domain_xml import identity, minimal_domain_xml
from .._saveimage._publish import partial_path
from ._description import Described, describe_guest
from ._plan import ImageKind, SavePlan, choose_kind, plan_save
from ._request import SaveRequest


def wanted_kind(request: SaveRequest) -> ImageKind:
    """Version and format that this run would write. Raises `Refused`, `StoreError`."""
    return choose_kind(request, _read_conf(request))


def make_plan(
    request: SaveRequest,
    guest: Guest,
    existing: SavedImage | None,
    *,
    direct_io_proved: bool | None,
) -> SavePlan:
    """The plan from what there is now. Raises as `plan_save`."""
    described = description_of(request, guest)
    compressor = compressor_of(wanted_kind(request).image_format)
    if compressor is not None:
        find_program(compressor)
    plan = plan_save(
        request,
        guest,
        _read_conf(request),
        existing,
        identity(described.xml) if described.xml is not None else None,
        cpu_count=len(os.sched_getaffinity(0)),
        free_bytes=free_bytes(request.path),
        direct_io_proved=direct_io_proved,
        access=look_at_access(guest.confinement, partial_path(request.path), write=True),
    )
    return replace(
        plan,
        described_by=(described.source, described.reason),
        warnings=(*plan.warnings, *described.warnings),
    )


def description_of(request: SaveRequest, guest: Guest) -> Described:
    """The domain description to embed, and why that one. Raises `Refused`."""
    directory = definitions_directory(request.qemu_conf)
    given = read_domain_xml(request.domain_xml_file)
    return describe_guest(guest, given, definitions(directory), directory)


def free_bytes(path: str) -> int:
    """What the store of ``path`` has left for us."""
    directory = os.path.dirname(path)
    try:
        store = os.statvfs(directory)
    except OSError as exc:
        raise Refused(f"The directory {directory} cannot be used: {exc.strerror}.") from exc
    return store.f_bavail * store.f_frsize


def domain_xml_of(request: SaveRequest, guest: Guest, plan: SavePlan) -> str:
    """The XML to embed."""
    return description_of(request, guest).xml or minimal_domain_xml(
        name=plan.name,
        uuid=plan.uuid,
        memory_bytes=guest.memory_bytes,
        vcpus=guest.vcpus,
        arch=guest.architecture,
        machine=guest.machine_type,
        accelerator=guest.accelerator,
    )


def _read_conf(request: SaveRequest) -> QemuConf:
    silent = QemuConf(request.qemu_conf, None, None)
    if request.image_format is not None:
        return silent
    try:
        return read_knobs(request.qemu_conf)
    except StoreError:
        # Unreadable is no obstacle to a version that was asked for by name.
        if request.image_version is None:
            raise
        return silent


def read_domain_xml(path: str | None) -> str | None:
    """The operator's domain description; None without one. Raises `Refused`."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as source:
            xml = source.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"domain_xml_file {path} cannot be read: {exc}.") from exc
    if identity(xml) is None:
        raise Refused(f"domain_xml_file {path} is not a libvirt domain description with a name.")
    return xml
