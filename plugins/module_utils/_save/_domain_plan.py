# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a save through libvirt would do, and why: pure functions from what was seen to one plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import Refused
from .._image_record import SavedImage
from .._libvirt._domain import Domain
from .._libvirt._qemu_conf import QemuConf
from .._libvirt_transfer import left_to_libvirt
from .._qemu._negotiation import MAPPED_RAM, SEQUENTIAL, Negotiated
from ._domain_request import DomainSaveRequest
from ._plan import METADATA_BYTES, ImageKind, SavePlan

_RUNNING = "running"

# What is in the way of a save, by the domain's state.
_STATE_PROBLEMS: t.Mapping[str, str] = {
    "shutdown": "its guest is shutting down; let it end",
    "crashed": "its guest has crashed; what is left of it would be saved as if it were well",
    "pmsuspended": (
        "its guest has put itself to sleep, and would not wake after a restore; wake it first "
        "(virsh dompmwakeup)"
    ),
}


@dataclass(frozen=True)
class Offer:
    """What daemon and QEMU can do. ``sparse``: libvirt knows the format and QEMU has mapped-ram;
    ``choice``: libvirt can be told a format at all; ``direct_io``: QEMU has that parameter;
    ``ram_files``: files that stand behind some of the domain's RAM; ``channels``: there is a way to
    ask for several."""

    choice: bool
    sparse: bool
    direct_io: bool
    ram_files: tuple[str, ...] = ()
    channels: bool = True


def check_domain(domain: Domain, blockers: t.Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse what cannot be saved, every reason at once; returns warnings.

    ``blockers``: QEMU's own reasons. Raises `Refused` with the domain's state.
    """
    problems = [f"QEMU says: {reason.rstrip('.')}" for reason in blockers]
    if domain.state in _STATE_PROBLEMS:
        problems.append(_STATE_PROBLEMS[domain.state])
    if domain.starting:
        problems.append("it is just being started or restored; wait until it runs")
    elif domain.job:
        problems.append(
            "a job of libvirt's runs on it (virsh domjobinfo shows it); wait, or abort that"
        )
    if domain.active and domain.has_managed_save:
        problems.append(
            "libvirt holds a managed save of it besides, which its next start would load over "
            f"disks that have moved on. Remove it first: virsh managedsave-remove {domain.name}"
        )
    if problems:
        raise Refused(
            f"The domain {domain.name} cannot be saved now: " + "; ".join(problems) + ".",
            guest={"name": domain.name, "uuid": domain.uuid, "state": domain.state},
        )
    if not domain.persistent:
        return (
            f"{domain.name} is transient: libvirt forgets it with this save, and the image is all "
            "that is left of its definition.",
        )
    return ()


def choose_domain_kind(request: DomainSaveRequest, conf: QemuConf, offer: Offer) -> ImageKind:
    """Version and format: what the owning daemon can read, unless something else is asked for.

    Raises `Refused` for what the daemon or the guest's QEMU cannot do.
    """
    if request.image_version == 3 and request.image_format is not None:
        raise Refused(
            f"image_format {request.image_format} does not go with image_version 3, whose layout "
            "is always mapped-ram. Leave image_format out, or ask for image_version 2."
        )
    wanted = request.image_format
    if wanted is not None:
        return _of_format(wanted, f"image_format {wanted} was asked for", offer, conf)
    version, why = request.image_version, f"image_version {request.image_version} was asked for"
    if version is None and conf.save_image_version is not None:
        version, why = conf.save_image_version, f"save_image_version of {conf.path}"
    if version == 3:
        _require_sparse(offer, f"image_version 3 ({why})")
        return ImageKind(3, "raw", MAPPED_RAM, why)
    if offer.ram_files:
        return ImageKind(2, "raw", SEQUENTIAL, f"{_stale(offer)}; raw clears such pages")
    if offer.sparse:
        default = "libvirt and QEMU here know sparse, the default for domains"
        return ImageKind(2, "sparse", MAPPED_RAM, default)
    label = conf.save_image_format or "raw"
    layout = MAPPED_RAM if label == "sparse" else SEQUENTIAL
    why = "libvirt or QEMU here lacks sparse; qemu.conf decides"
    return ImageKind(2, label, layout, why)


def _of_format(wanted: str, why: str, offer: Offer, conf: QemuConf) -> ImageKind:
    if wanted == "sparse":
        _require_sparse(offer, "image_format sparse")
        return ImageKind(2, wanted, MAPPED_RAM, why)
    if not offer.choice and wanted != (conf.save_image_format or "raw"):
        raise Refused(
            f"This libvirt cannot be told image_format {wanted} (11.2 can): qemu.conf alone "
            "decides. Set save_image_format there, or leave image_format out."
        )
    return ImageKind(2, wanted, SEQUENTIAL, why)


def _stale(offer: Offer) -> str:
    """Why mapped-ram does not go with RAM in a file that outlives its QEMU (T4)."""
    return (
        f"{', '.join(offer.ram_files)} holds RAM of the domain, and a sparse load leaves what is "
        "in a file wherever the guest's page was zero"
    )


def _require_sparse(offer: Offer, what: str) -> None:
    if not offer.sparse:
        raise Refused(f"{what} needs libvirt 11.2 and, under the domain, QEMU 9.0.")
    if offer.ram_files:
        raise Refused(f"{what} cannot be: {_stale(offer)}. Ask for image_format raw.")


def negotiate_domain(
    request: DomainSaveRequest, kind: ImageKind, offer: Offer, *, cpu_count: int
) -> Negotiated:
    """Channels and cache. Raises `Refused`."""
    asked = request.parallel_channels
    if kind.layout == SEQUENTIAL and asked is not None:
        raise Refused(
            f"parallel_channels {asked} does not go with format {kind.image_format}, which is one "
            "stream. Leave it out, or ask for sparse."
        )
    if request.bypass_cache and kind.layout == MAPPED_RAM and not offer.direct_io:
        raise Refused("bypass_cache with a sparse image needs, under the domain, QEMU 9.1.")
    return left_to_libvirt(
        kind.layout,
        channels_asked=asked,
        bypass_cache_asked=request.bypass_cache,
        cpu_count=cpu_count,
        may_choose=offer.channels,
        measured=request.measured,
        direct_io=offer.direct_io,
    )


def replace_problem(domain: Domain, existing: SavedImage, *, never_ran: bool) -> str | None:
    """Why what is at the path may not be replaced without `overwrite`; None when it may.

    ``never_ran``: the domain was loaded from it, and its vCPUs are still held.
    """
    whose = f"{existing.path} already holds a {existing.state} image of {existing.name}"
    if existing.uuid != domain.uuid:
        return f"{whose} (UUID {existing.uuid or 'unknown'}), which is not this domain"
    if existing.state == "partial":
        return f"{whose}: it was never finished, or another program is writing it"
    if never_ran and existing.state == "ready":
        return f"{whose}, and the guest has not run since it was taken"
    return None


def plan_domain_save(
    request: DomainSaveRequest,
    domain: Domain,
    conf: QemuConf,
    existing: SavedImage | None,
    offer: Offer,
    *,
    cpu_count: int,
    free_bytes: int,
    direct_io_proved: bool | None,
    never_ran: bool = False,
) -> SavePlan:
    """The whole plan, or `Refused`. ``never_ran``: see `replace_problem`."""
    warnings = [*check_domain(domain)]
    problem = None
    if existing is not None:
        problem = replace_problem(domain, existing, never_ran=never_ran)
    if problem is not None and not request.overwrite:
        raise Refused(f"{problem}. Choose another path, or set overwrite to replace it.")
    kind = choose_domain_kind(request, conf, offer)
    negotiated = negotiate_domain(request, kind, offer, cpu_count=cpu_count)
    if negotiated.bypass_cache and direct_io_proved is False:
        raise Refused(
            f"bypass_cache was asked for, but the filesystem of {request.path} does not do "
            "O_DIRECT. Leave bypass_cache out, or choose another store."
        )
    at_most_bytes = domain.memory_bytes + METADATA_BYTES
    if free_bytes < at_most_bytes:
        warnings.append(
            f"The store has {free_bytes} bytes free and the image may need up to "
            f"{at_most_bytes}; if it fills up, libvirt lets the guest go on."
        )
    return SavePlan(
        path=request.path,
        name=domain.name,
        uuid=domain.uuid,
        kind=kind,
        negotiated=negotiated,
        bypass_cache_proved=direct_io_proved,
        run_state_before=domain.state,
        was_running=domain.state == _RUNNING,
        guest_state="stopped",
        verify="structure",
        replaces=existing,
        at_most_bytes=at_most_bytes,
        free_bytes=free_bytes,
        warnings=tuple(warnings),
        holds_autostart=domain.autostart or domain.autostart_once,
    )


def is_of(image: SavedImage, named: str, domain: Domain | None) -> bool:
    """Whether an image is of the domain that was named; ``domain``: what libvirt knows of it."""
    if domain is not None:
        return image.uuid == domain.uuid
    return named == image.name or named.lower() == image.uuid


def saved_before(
    request: DomainSaveRequest, existing: SavedImage | None, domain: Domain | None
) -> str | None:
    """Why a domain that no QEMU holds was not saved into this path before; None when it was.
    ``domain``: what libvirt knows of it."""
    if existing is None:
        return f"there is no image at {request.path}"
    if not is_of(existing, request.domain, domain):
        return f"the image at {request.path} is of {existing.name} (UUID {existing.uuid})"
    if existing.state != "ready":
        return f"the image at {request.path} is {existing.state}"
    return None
