# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What is left to do for a domain that libvirt holds, or held, in a managed save."""

from __future__ import annotations

import typing as t

from .._errors import Refused
from .._libvirt._domain import Domain
from ._domain_plan import Step


def decide(domain: Domain, *, held: bool, asked: str) -> tuple[Step, str]:
    """What to do and why. ``held``: a run that died loaded it and was to let it run; ``asked``: the
    option run_state.

    Raises `Refused` with the domain's state.
    """
    if not domain.active:
        if not domain.has_managed_save:
            _refuse(domain, "libvirt holds no managed save of it, and would boot it afresh")
        return Step.LOAD, "libvirt holds a managed save of it, and no QEMU holds the domain"
    if domain.starting or domain.job:
        _refuse(domain, "it is being started, restored or saved just now. Wait until that is over")
    if domain.has_managed_save:
        _refuse(
            domain,
            f"it is {domain.state} although libvirt holds a managed save of it, whose next restore "
            f"would corrupt its disks. Remove that: virsh managedsave-remove {domain.name}",
        )
    if domain.state not in ("running", "paused", "pmsuspended"):
        _refuse(domain, f"it is {domain.state}, and its QEMU still there. End it first")
    if domain.state == "paused" and asked != "paused":
        if held:
            return Step.CONTINUE, "a run that died loaded it and left the domain paused"
        if asked == "running":
            return Step.CONTINUE, "it is paused, and shall run"
    return Step.NOTHING, f"the domain is {domain.state}, and libvirt holds no managed save of it"


def _refuse(domain: Domain, why: str) -> t.NoReturn:
    raise Refused(
        f"The domain {domain.name} cannot be restored from a managed save: {why}.",
        guest={"name": domain.name, "uuid": domain.uuid, "state": domain.state},
    )
