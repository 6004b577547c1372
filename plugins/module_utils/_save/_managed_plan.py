# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a managed save would do, and why: pure functions from what was seen to one plan."""

from __future__ import annotations

from .._errors import Refused
from .._image_record import SavedImage
from .._libvirt._domain import Domain
from .._libvirt._qemu_conf import QemuConf
from .._libvirt_transfer import left_to_libvirt
from .._qemu._negotiation import MAPPED_RAM, SEQUENTIAL
from ._domain_plan import check_domain
from ._domain_request import ManagedSaveRequest
from ._plan import METADATA_BYTES, ImageKind, SavePlan


def managed_kind(conf: QemuConf) -> ImageKind:
    """Version and format, which libvirt takes from its qemu.conf alone. Never version 3: libvirt
    reads the file itself at the next start of the domain."""
    label = conf.save_image_format or "raw"
    why = "libvirt writes managed saves as its qemu.conf says, in version 2"
    return ImageKind(2, label, MAPPED_RAM if label == "sparse" else SEQUENTIAL, why)


def kind_of(image: SavedImage, planned: ImageKind) -> ImageKind:
    """What libvirt wrote: it may run with an older qemu.conf than the file is now."""
    return ImageKind(image.version, image.image_format, image.layout, planned.reason)


def plan_managed_save(
    request: ManagedSaveRequest,
    domain: Domain,
    conf: QemuConf,
    path: str,
    *,
    direct_io: bool,
    free_bytes: int,
) -> SavePlan:
    """The whole plan, or `Refused`. ``direct_io``: the domain's QEMU has that parameter."""
    if not domain.persistent:
        raise Refused(
            f"The domain {domain.name} is transient: libvirt would forget it, and its managed save "
            "with it. Give a path in place of managed.",
            guest={"name": domain.name, "uuid": domain.uuid, "state": domain.state},
        )
    warnings = [*check_domain(domain)]
    kind = managed_kind(conf)
    if request.bypass_cache and kind.layout == MAPPED_RAM and not direct_io:
        raise Refused("bypass_cache with a sparse image needs, under the domain, QEMU 9.1.")
    at_most_bytes = domain.memory_bytes + METADATA_BYTES
    if free_bytes < at_most_bytes:
        warnings.append(
            f"libvirt's store has {free_bytes} bytes free and the image may need up to "
            f"{at_most_bytes}; if it fills up, libvirt lets the guest go on."
        )
    return SavePlan(
        path=path,
        name=domain.name,
        uuid=domain.uuid,
        kind=kind,
        negotiated=left_to_libvirt(
            kind.layout,
            channels_asked=None,
            bypass_cache_asked=request.bypass_cache,
            cpu_count=1,
            may_choose=False,
        ),
        bypass_cache_proved=None,
        run_state_before=domain.state,
        was_running=domain.state == "running",
        guest_state="stopped",
        verify="structure",
        replaces=None,
        at_most_bytes=at_most_bytes,
        free_bytes=free_bytes,
        warnings=tuple(warnings),
    )
