# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a restore through libvirt has to do, from the domain's activity and the parsed image; never
from libvirt's word for why a domain is in its state, which a restart of the daemon forgets."""

from __future__ import annotations

import enum
import typing as t

from .._errors import Refused
from .._image_record import SavedImage
from .._libvirt._domain import Domain
from ._domain_request import DomainRestoreRequest


class Step(enum.Enum):
    """``LOAD``: bring it back; ``CONTINUE``: a run that died loaded it, and its vCPUs are held;
    ``NOTHING``: it was brought back before."""

    LOAD = "restore"
    CONTINUE = "continue"
    NOTHING = "unchanged"


def check_owner(image: SavedImage, request: DomainRestoreRequest) -> None:
    """Raise `Refused` where the image is of another domain than was named."""
    if request.domain != image.name and request.domain.lower() != image.uuid:
        raise Refused(
            f"The image {request.path} is of {image.name} (UUID {image.uuid or 'unknown'}), not of "
            f"{request.domain}. Nothing was done."
        )
    if image.uuid is None:
        raise Refused(
            f"The image {request.path} names no UUID, so that libvirt cannot restore it. Restore "
            "it over QMP (qmp_socket)."
        )


def decide(
    image: SavedImage,
    domain: Domain | None,
    *,
    loaded_by_us: bool,
    run_afterwards: bool,
) -> tuple[Step, str]:
    """What is left to do and why. ``domain``: the one of the image's UUID; ``loaded_by_us``: the
    image notes that a run of ours began to load it, and its QEMU was started to load.

    Raises `Refused` with the domain's state.
    """
    spent = image.state == "spent"
    if domain is None or not domain.active:
        if domain is not None and domain.has_managed_save:
            _refuse(
                domain,
                "libvirt holds a managed save of it, which its next start would restore over the "
                f"disks of this one. Remove it first: virsh managedsave-remove {domain.name}",
            )
        return Step.LOAD, f"the image is {image.state}, and no QEMU holds the domain"
    if domain.starting or domain.job:
        _refuse(domain, "it is being started, restored or saved just now. Wait until that is over")
    if domain.state not in ("running", "paused", "pmsuspended"):
        _refuse(domain, f"it is {domain.state}, and its QEMU still there. End it first")
    left_paused = domain.state == "paused" and loaded_by_us
    if spent and left_paused and run_afterwards and not image.continued:
        return Step.CONTINUE, "a run that died marked the image spent and left the domain paused"
    if spent:
        return Step.NOTHING, "the domain runs, and the image is spent"
    if left_paused:
        if run_afterwards:
            return Step.CONTINUE, "a run before this one loaded it and left the domain paused"
        return Step.NOTHING, "it was loaded before, and is paused as it should be"
    _refuse(
        domain,
        f"it is {domain.state} although the image is still ready: it was started from elsewhere, "
        "and the image is stale. Restoring it now or later would corrupt its disks",
    )


def _refuse(domain: Domain, why: str) -> t.NoReturn:
    raise Refused(
        f"The domain {domain.name} cannot be restored: {why}.",
        guest={"name": domain.name, "uuid": domain.uuid, "state": domain.state},
    )
