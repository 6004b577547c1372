# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A save of a domain that no QEMU holds any more: done before, finished now, or impossible."""

from __future__ import annotations

from .._errors import Refused
from .._image_record import describe_target
from .._libvirt._domain import Domain
from ._domain_leftover import treat_leftover
from ._domain_plan import saved_before
from ._domain_request import DomainSaveRequest
from ._outcome import SaveOutcome


async def save_of_absent_domain(
    request: DomainSaveRequest, domain: Domain | None, *, check_mode: bool
) -> SaveOutcome:
    """Publish what libvirt finished after its run had died, and say whether the domain was saved.

    ``domain``: None where libvirt does not know it. Raises `Refused` when it was not saved.
    """
    state = "absent" if domain is None else domain.state
    if domain is not None and domain.has_managed_save:
        raise Refused(
            f"The domain {domain.name} is not running; libvirt holds it in a managed save, which "
            "the next start of it uses up.",
            guest={"name": domain.name, "uuid": domain.uuid, "state": state},
        )
    before = describe_target(request.path)
    left = await treat_leftover(request, domain, check_mode=check_mode)
    there = left.image if left is not None else before
    why = saved_before(request, there, domain)
    if why is not None or there is None:
        raise Refused(
            f"The domain {request.domain} is not running at {request.uri}, and it was not saved "
            f"before: {why}.",
            guest={"state": state},
        )
    published = left is not None
    return SaveOutcome(
        changed=published,
        message=f"The save of {there.name} to {request.path} "
        + ("would be finished." if check_mode else "was finished.")
        if published
        else f"{there.name} was saved to {request.path} before.",
        reason=left.reason if left is not None else "its image is ready and no QEMU holds it",
        name=there.name,
        uuid=there.uuid,
        pid=None,
        state_before="stopped",
        state_after="stopped",
        image_before=before,
        image_state="ready",
        image_after=there,
        actions=(f"published {request.path}: {left.reason}",)
        if left is not None and not check_mode
        else (),
    )
