# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a save would do, and why: pure functions from observations to one plan.

Check mode, diff, the run and the report all show the plan that is made here.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from .._image_access import NOTHING_NEEDED, ImageAccess
from .._image_record import SavedImage
from .._libvirt._qemu_conf import QemuConf
from .._qemu._block_graph import block_problems
from .._qemu._guest import Guest
from .._qemu._negotiation import Ask, Negotiated, negotiate
from .._qemu._recorded_argv import relaunch
from .._qemu._run_states import migration_status_blocks, save_decision
from .._qemu._secrets import hide_in
from .._qemu._systemd_unit import Unit
from ._request import SaveRequest
from ._target import canonical_uuid, replace_refusal

MAPPED_RAM = "mapped-ram"
SEQUENTIAL = "sequential"
METADATA_BYTES = 16 << 20
_DEFAULT_VERSION = 3
_SUPPRESSES_VMDESC = (
    "its machine property suppress-vmdesc is on, so that the stream ends without the device "
    "description and nothing could prove that the image is whole. Switch it off, which changes "
    "nothing for the guest (qom-set with path /machine, property suppress-vmdesc, value false), "
    "and leave it out when QEMU is started the next time"
)


@dataclass(frozen=True)
class ImageKind:
    """``version`` 2 or 3; ``image_format`` as the header will name it; why it was chosen."""

    version: int
    image_format: str
    layout: str
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SavePlan:
    """Everything decided before the guest is touched. ``bypass_cache_proved`` is None until the
    filesystem was tried, which check mode never does. ``recovers``: what a run that died left, and
    what is done about it first. ``unit``: the systemd unit that runs the guest and is stopped in
    place of QEMU. ``described_by``: where the domain description comes from and why, over QMP.
    ``holds_autostart``: the domain's is switched off until it is restored. ``access``: what the
    image needs so that QEMU may write it."""

    path: str
    name: str
    uuid: str | None
    kind: ImageKind
    negotiated: Negotiated
    bypass_cache_proved: bool | None
    run_state_before: str
    was_running: bool
    guest_state: str
    verify: str
    replaces: SavedImage | None
    at_most_bytes: int
    free_bytes: int
    warnings: tuple[str, ...]
    recovers: t.Mapping[str, str] | None = None
    unit: Unit | None = None
    described_by: tuple[str, str] | None = None
    holds_autostart: bool = False
    access: ImageAccess = NOTHING_NEEDED

    @property
    def through_pipe(self) -> bool:
        """Whether QEMU writes into a pipe: for a compressor, or for the O_DIRECT pump."""
        return self.kind.layout == SEQUENTIAL and (
            self.kind.image_format != "raw" or self.negotiated.bypass_cache
        )

    @property
    def state_afterwards(self) -> str:
        """The guest's state after a run that succeeds: paused is QEMU's postmigrate."""
        return "postmigrate" if self.guest_state == "paused" else self.guest_state

    @property
    def image_state_afterwards(self) -> str:
        return "spent" if self.guest_state == "running" else "ready"

    def as_dict(self) -> dict[str, t.Any]:
        """The plan as a module returns it."""
        bypass: bool | str = self.negotiated.bypass_cache
        return {
            "action": "save",
            "path": self.path,
            "image_version": self.kind.version,
            "image_format": self.kind.image_format,
            "layout": self.kind.layout,
            "parallel_channels": self.negotiated.channels,
            "bypass_cache": bypass,
            "bypass_cache_proved": (
                "unproven" if bypass and self.bypass_cache_proved is None else bool(bypass)
            ),
            "guest_state": self.guest_state,
            "was_running": self.was_running,
            "verify": self.verify,
            "systemd_unit": self.unit.name if self.unit is not None else None,
            "replaces": self.replaces.state if self.replaces else None,
            "at_most_bytes": self.at_most_bytes,
            "free_bytes": self.free_bytes,
            "holds_autostart": self.holds_autostart,
            "recovers": dict(self.recovers) if self.recovers else None,
            "domain_xml": self.described_by[0] if self.described_by else None,
            "reasons": {
                "image_version": self.kind.reason,
                **({"domain_xml": self.described_by[1]} if self.described_by else {}),
                **self.negotiated.reasons,
            },
            **self.access.as_dict(),
        }


def choose_kind(request: SaveRequest, conf: QemuConf) -> ImageKind:
    """Version and format from the options, then qemu.conf, then version 3.

    Raises `Refused` for combinations that no reader would understand.
    """
    if request.image_version == 3 and request.image_format is not None:
        raise Refused(
            f"image_format {request.image_format} does not go with image_version 3, whose layout "
            "is always mapped-ram. Leave image_format out, or ask for image_version 2."
        )
    if request.image_format is not None:
        return _version_2(
            request.image_format, f"image_format {request.image_format} was asked for"
        )
    version, reason = _choose_version(request, conf)
    if version == 2:
        label = conf.save_image_format or "raw"
        source = f"save_image_format of {conf.path}" if conf.save_image_format else "the default"
        return _version_2(label, f"{reason}; format {label} by {source}")
    warnings: tuple[str, ...] = ()
    if conf.save_image_format not in (None, "raw", "sparse"):
        warnings = (
            f"{conf.path} sets save_image_format to {conf.save_image_format}, but an image of "
            "version 3 is never compressed; the setting was ignored.",
        )
    return ImageKind(3, "raw", MAPPED_RAM, reason, warnings)


def _choose_version(request: SaveRequest, conf: QemuConf) -> tuple[int, str]:
    if request.image_version is not None:
        return request.image_version, f"image_version {request.image_version} was asked for"
    if conf.save_image_version is not None:
        return conf.save_image_version, f"save_image_version of {conf.path}"
    return _DEFAULT_VERSION, "the default"


def _version_2(label: str, reason: str) -> ImageKind:
    return ImageKind(2, label, MAPPED_RAM if label == "sparse" else SEQUENTIAL, reason)


def choose_identity(
    request: SaveRequest, guest: Guest, xml_identity: tuple[str, str | None] | None
) -> tuple[str, str | None]:
    """Name and UUID that go into the image: QEMU's, else the options', else the XML's.

    The name falls back to the file's; a guest without any UUID stays without. Raises `Refused`
    where two sources contradict each other.
    """
    asked_uuid = canonical_uuid(request.uuid, "Option uuid") if request.uuid else None
    xml_name, xml_uuid = xml_identity or (None, None)
    name = _agree("name", [guest.name, request.name, xml_name])
    uuid = _agree("UUID", [guest.uuid, asked_uuid, xml_uuid])
    return name or _name_from(request.path), uuid


def _agree(what: str, sources: t.Sequence[str | None]) -> str | None:
    labels = ("QEMU", "the option", "domain_xml_file")
    known = [(label, value) for label, value in zip(labels, sources) if value]
    for label, value in known[1:]:
        if value != known[0][1]:
            raise Refused(
                f"The guest's {what} is {known[0][1]} according to {known[0][0]}, but {value} "
                f"according to {label}. This looks like another guest; nothing was changed."
            )
    return known[0][1] if known else None


def _name_from(path: str) -> str:
    name = os.path.splitext(os.path.basename(path))[0] or "guest"
    return os.fsencode(name).decode("utf-8", "replace")


def check_guest(allow: frozenset[str], guest: Guest) -> tuple[str, ...]:
    """Refuse what cannot be saved, in the operator's words; returns warnings.

    Raises `Refused` with every reason at once.
    """
    problems = []
    decision = save_decision(guest.run_state)
    if not decision.allowed:
        problems.append(f"it is in run state {guest.run_state}: {decision.refusal}")
    busy = migration_status_blocks(guest.migration_status)
    if busy is not None:
        problems.append(busy)
    problems += [f"QEMU says: {reason}" for reason in guest.blocked_reasons]
    if guest.suppresses_vmdesc:
        problems.append(_SUPPRESSES_VMDESC)
    warnings = []
    for problem in block_problems(
        guest.block_nodes,
        list(guest.block_jobs),
        list(guest.block_exports),
        guest.missing_files,
        allow,
    ):
        if problem.overridable and problem.code in allow:
            warnings.append(hide_in(problem.message))
        else:
            problems.append(hide_in(problem.message))
    if problems:
        raise Refused(
            f"The guest on {guest.qmp_socket} cannot be saved now: " + "; ".join(problems),
            guest={"state": guest.run_state},
        )
    return tuple(warnings)


def launch_warnings(guest: Guest) -> tuple[str, ...]:
    """What a restore from the image alone will lack, to be known while the guest is still there."""
    if guest.surroundings is None:
        return (
            "How its QEMU is run cannot be seen from here and is not recorded; its restore will "
            "need argv, or a QEMU that waits.",
        )
    try:
        relaunch(
            guest.surroundings.argv,
            program=guest.surroundings.executable,
            machine_type=guest.machine_type,
            changed_user=guest.surroundings.user_id != 0,
        )
    except Refused as exc:
        return (f"{exc.message} Its restore will need that.",)
    return ()


def plan_save(
    request: SaveRequest,
    guest: Guest,
    conf: QemuConf,
    existing: SavedImage | None,
    xml_identity: tuple[str, str | None] | None,
    *,
    cpu_count: int,
    free_bytes: int,
    direct_io_proved: bool | None = None,
    access: ImageAccess = NOTHING_NEEDED,
) -> SavePlan:
    """The whole plan, or `Refused`. ``direct_io_proved``: see `Ask`."""
    warnings = [*check_guest(request.allow, guest), *launch_warnings(guest)]
    kind = choose_kind(request, conf)
    name, uuid = choose_identity(request, guest, xml_identity)
    if existing is not None and not request.overwrite:
        refusal = replace_refusal(existing, guest, uuid, request.path)
        if refusal is not None:
            raise Refused(f"{refusal}. Choose another path, or set overwrite to replace it.")
    negotiated = negotiate(
        Ask(
            direction="save",
            layout=kind.layout,
            channels=request.parallel_channels,
            bypass_cache=request.bypass_cache,
            max_bandwidth_bytes=request.max_bandwidth,
            cpu_count=cpu_count,
            direct_io_proved=direct_io_proved,
            measured=request.measured,
        ),
        guest.offer,
    )
    at_most_bytes = guest.ram_bytes + METADATA_BYTES
    if free_bytes < at_most_bytes:
        warnings.append(
            f"The store has {free_bytes} bytes free and the image may need up to "
            f"{at_most_bytes}; if it fills up, the save is undone and the guest goes on."
        )
    return SavePlan(
        path=request.path,
        name=name,
        uuid=uuid,
        kind=kind,
        negotiated=negotiated,
        bypass_cache_proved=direct_io_proved,
        run_state_before=guest.run_state,
        was_running=save_decision(guest.run_state).was_running,
        guest_state=request.guest_state,
        verify=request.verify,
        replaces=existing,
        unit=request.unit,
        at_most_bytes=at_most_bytes,
        free_bytes=free_bytes,
        warnings=tuple(warnings) + kind.warnings + negotiated.degraded + access.warnings,
        access=access,
    )
