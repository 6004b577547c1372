# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a save through libvirt tells in the end: its outcome, or what failed and where that leaves
the guest."""

from __future__ import annotations

import time
import typing as t

from .._failure import facts_of, words_of
from .._image_record import SavedImage
from .._libvirt._domain import Domain
from .._pipeline import decode_and_verify
from .._saveimage._compressors import compressor_of
from .._saveimage._verify import Structure, verify_structure
from .._uninterrupted import in_thread
from ._outcome import SaveOutcome
from ._plan import SavePlan
from ._undo import SaveFailed

CRASHED = "crashed"


async def verify_written(fd: int, path: str, image_format: str) -> Structure:
    """Walk what libvirt wrote, decoded if it is compressed. Raises `ImageInvalid`,
    `ProgramFailed`."""
    compressor = compressor_of(image_format)
    if compressor is None:
        return await in_thread(lambda: verify_structure(fd, path))
    return await decode_and_verify(fd, path, compressor)


def outcome(
    plan: SavePlan,
    domain: Domain,
    existing: SavedImage | None,
    structure: Structure | None,
    *,
    began: float,
    actions: t.Iterable[str],
    warnings: t.Iterable[str] = (),
) -> SaveOutcome:
    """``structure``: None in check mode; ``began``: monotonic time."""
    done = structure is not None
    return SaveOutcome(
        changed=True,
        message=f"{'Saved' if done else 'Would save'} {plan.name} to {plan.path}.",
        reason=f"{plan.name} was {domain.state}",
        name=plan.name,
        uuid=plan.uuid,
        pid=None,
        state_before=domain.state,
        state_after="stopped",
        image_before=existing,
        image_state="ready",
        plan=plan,
        structure=structure,
        verified="structure" if done else None,
        verified_before_quit=False,
        duration_seconds=round(time.monotonic() - began, 3) if done else 0.0,
        actions=tuple(actions),
        warnings=(*plan.warnings, *warnings),
    )


def failed(
    domain: Domain, step: str, cause: BaseException, state: str, actions: list[str], advice: str
) -> SaveFailed:
    """The error of a save that libvirt did not do; ``state``: the guest's now."""
    return _error(domain, step, cause, state, actions, advice)


def failed_afterwards(
    domain: Domain, step: str, cause: Exception, actions: list[str], path: str
) -> SaveFailed:
    """The error of a save that libvirt did, where the image turned out bad."""
    advice = (
        "libvirt had ended its QEMU before, so the guest is gone; what there is of it is in "
        f"{path}. Keep that file; the same save, run again, publishes it if it is whole."
    )
    return _error(domain, step, cause, "stopped", actions, advice, changed=True)


def _error(
    domain: Domain,
    step: str,
    cause: BaseException,
    state: str,
    actions: list[str],
    advice: str,
    **facts: t.Any,
) -> SaveFailed:
    return SaveFailed(
        f"Saving {domain.name} failed while {step}: {words_of(cause)} {advice}",
        **facts_of(cause),
        step=step,
        guest={"name": domain.name, "uuid": domain.uuid, "state": state},
        actions=list(actions),
        **facts,
    )
