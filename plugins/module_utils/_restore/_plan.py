# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a restore would do, and why: pure functions from observations to one plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from .._errors import Refused
from .._image_access import NOTHING_NEEDED, ImageAccess, lost_confinement
from .._image_record import SavedImage
from .._qemu._description import differences
from .._qemu._guest import Guest
from .._qemu._negotiation import Ask, Negotiated, negotiate
from ._checks import CHANGED_DISKS, Check
from ._request import EAGER, LAZY, RestoreRequest

MAPPED_RAM = "mapped-ram"
SEQUENTIAL = "sequential"
WAITING = "inmigrate"
# Where a load leaves the vCPUs. A cont that QEMU refuses changes none of these, so they prove that
# no instruction ran; any other state may follow instructions that did.
NEVER_RAN = ("paused", "prelaunch", "postmigrate")
_OTHER_MAKE = (
    " The recorded command line made a QEMU that is not the guest: devices that were plugged in or "
    "unplugged while it ran, for instance, are not in it. Give argv with what the guest had."
)
_OTHER_DISK = (
    " (it would go on with the bytes of another disk and corrupt it; give argv with the disks that "
    f"it had, or allow {CHANGED_DISKS})"
)


@dataclass(frozen=True)
class RestorePlan:
    """``launch``: whose command line a QEMU is started with, recorded or given, None where one is
    there. ``negotiated`` is None until a QEMU was asked (check mode without a waiting one);
    ``checks``: what was asked of image and host; ``recovers``: what a run that died left, and what
    is done about it first; ``mapped_bytes``: of RAM that is mapped from the image and not read;
    ``prefetch``: how it is read ahead of the guest then; ``access``: what the image needs so that
    QEMU may read it."""

    action: str
    path: str
    layout: str
    compressor: str | None
    run_afterwards: bool
    launch: str | None
    negotiated: Negotiated | None
    reason: str
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    recovers: t.Mapping[str, str] | None = None
    mapped_bytes: int = 0
    prefetch: str | None = None
    access: ImageAccess = NOTHING_NEEDED

    @property
    def through_pipe(self) -> bool:
        """Whether QEMU reads from a pipe: from a decompressor, or from the O_DIRECT pump."""
        return self.compressor is not None or (
            self.layout == SEQUENTIAL
            and self.negotiated is not None
            and self.negotiated.bypass_cache
        )

    def as_dict(self) -> dict[str, t.Any]:
        """The plan as a module returns it; ``unknown`` is what only a QEMU can tell."""
        known = self.negotiated
        return {
            "action": self.action,
            "path": self.path,
            "layout": self.layout,
            "load": LAZY if self.mapped_bytes else EAGER,
            "mapped_bytes": self.mapped_bytes,
            "prefetch": self.prefetch,
            "run_afterwards": self.run_afterwards,
            "start_qemu": self.launch is not None,
            "launch": self.launch,
            "parallel_channels": known.channels if known else "unknown",
            "bypass_cache": known.bypass_cache if known else "unknown",
            "checks": {check.name: check.answer for check in self.checks},
            "same_guest": "yes" if known else "unknown",
            "recovers": dict(self.recovers) if self.recovers else None,
            "reasons": dict(known.reasons) if known else {},
            **self.access.as_dict(),
        }


def runs_afterwards(asked: str, saved: SavedImage) -> bool:
    """Whether the vCPUs shall run after the load."""
    return saved.was_running if asked == "as_saved" else asked == "running"


def check_image(saved: SavedImage, request: RestoreRequest, why: str = "") -> tuple[str, ...]:
    """Refuse an image that must not be restored; returns warnings about what was allowed.

    ``why``: how a spent image came to be so.
    """
    where = f"The image {request.path}"
    if saved.state == "partial":
        raise Refused(
            f"{where} is partial: its save was never finished, or still goes on. It cannot be "
            "restored; the guest's RAM is not in it."
        )
    if saved.layout == SEQUENTIAL and request.parallel_channels is not None:
        raise Refused(
            f"{where} holds a sequential stream, which is one stream: parallel_channels "
            f"{request.parallel_channels} does not go with it. Leave it out."
        )
    if request.load == LAZY:
        _check_lazy(saved, request)
    if saved.state == "spent":
        if "spent" not in request.allow:
            raise Refused(
                f"{where} is spent: its guest has run since it was saved, so its disks have moved "
                "on and restoring it would corrupt them. If the disks were rolled back to the "
                "moment of the save as well, set allow to spent." + (f" {why}" if why else "")
            )
        return ("The image was spent; its guest's disks must have been rolled back to match it.",)
    return ()


def _check_lazy(saved: SavedImage, request: RestoreRequest) -> None:
    where = f"The image {request.path}"
    if saved.layout != MAPPED_RAM:
        kind = f"compressed with {saved.compressor}" if saved.compressor else "sequential"
        raise Refused(
            f"{where} is {kind}: its pages do not lie where they could be mapped from. Set load to "
            "eager; the next save with image_version 3 makes an image that can be mapped."
        )
    if request.bypass_cache:
        raise Refused(
            f"bypass_cache does not go with load lazy: {request.path} would be mapped, and a "
            "mapping is served from the page cache. Leave bypass_cache out."
        )


def is_restored_guest(saved: SavedImage, guest: Guest) -> bool:
    """Whether the guest on the socket is the one that this image holds."""
    if guest.process is not None and saved.loaded_into is not None:
        return guest.process == saved.loaded_into
    return guest.uuid is not None and guest.uuid == saved.uuid


def decide_for_live_guest(saved: SavedImage, guest: Guest, request: RestoreRequest) -> str:
    """What to do when the socket is served by a guest that is not waiting for a stream.

    Returns ``unchanged`` or ``continue`` (loaded by an earlier restore, still paused). Raises
    `Refused` for everything else.
    """
    mine = is_restored_guest(saved, guest)
    wants_running = runs_afterwards(request.run_state, saved)
    if mine and saved.state == "spent":
        if guest.run_state == "running" or not wants_running:
            return "unchanged"
        # A restore that died between marking the image and continuing the guest.
        if not saved.continued and guest.run_state in NEVER_RAN:
            return "continue"
        raise Refused(
            f"The guest on {request.qmp_socket} was restored from this image and is now in run "
            f"state {guest.run_state}. Somebody stopped it since; continue it over its monitor."
        )
    if mine and saved.loaded_into is not None and guest.run_state in ("paused", "prelaunch"):
        return "continue" if wants_running else "unchanged"
    if mine and guest.run_state == "running":
        raise Refused(
            f"The guest {saved.name} runs already, but not from {request.path}, which is still "
            "ready: it was started elsewhere, so the image is stale. Remove the image; restoring "
            "it later would corrupt the guest's disks.",
            guest={"state": guest.run_state},
        )
    source = guest.process
    if source is not None and source == saved.saved_from and guest.run_state == "postmigrate":
        raise Refused(
            f"The guest {saved.name} is still held by the QEMU that it was saved from, process "
            f"{source.pid}, in run state {guest.run_state}. Let it go with a save to the "
            "same path: guest_state stopped ends that QEMU, guest_state running lets the guest go "
            "on there and spends the image.",
            guest={"state": guest.run_state},
        )
    raise Refused(
        f"The QEMU on {request.qmp_socket} is not waiting for an incoming guest; it is in run "
        f"state {guest.run_state}"
        + (f" and runs {guest.name}" if guest.name else "")
        + ". Start one with -incoming defer -S on a socket of its own.",
        guest={"state": guest.run_state},
    )


def plan_load(
    saved: SavedImage,
    guest: Guest,
    request: RestoreRequest,
    *,
    launch: str | None,
    checks: t.Sequence[Check],
    cpu_count: int,
    direct_io_proved: bool | None,
    stale_backends: t.Sequence[str],
    mapped_bytes: int = 0,
    access: ImageAccess = NOTHING_NEEDED,
) -> RestorePlan:
    """The plan for a QEMU that waits; raises `Refused` with every difference and both figures.

    ``mapped_bytes``: of its RAM that is mapped from the image already.
    """
    warnings = check_image(saved, request) + warnings_of(checks)
    if guest.run_state != WAITING:
        raise Refused(
            f"The QEMU on {request.qmp_socket} is in run state {guest.run_state}, not waiting."
        )
    different = differences(saved.description, guest.description, guest.ram_blocks, saved.layout)
    if not request.rehearse:
        warnings += lost_confinement(saved.confined_by, guest.confinement)
    problems = list(different.guest)
    if CHANGED_DISKS in request.allow or request.rehearse:
        warnings += different.disks if not request.rehearse else ()
    else:
        problems += [f"{words}{_OTHER_DISK}" for words in different.disks]
    if saved.layout == MAPPED_RAM:
        problems += stale_backends
    if problems:
        hint = _OTHER_MAKE if different.guest and launch == "recorded" else ""
        raise Refused(
            f"The QEMU on {request.qmp_socket} cannot take the guest of {request.path}: "
            + "; ".join(problems)
            + f". Nothing was loaded.{hint}"
        )
    negotiated = negotiate(
        Ask(
            direction="restore",
            layout=saved.layout,
            # What is left to load is a few MiB in memory.
            channels=1 if mapped_bytes else request.parallel_channels,
            bypass_cache=False if mapped_bytes else request.bypass_cache,
            max_bandwidth_bytes=None,
            cpu_count=cpu_count,
            direct_io_proved=direct_io_proved,
            measured=None if mapped_bytes else request.measured,
        ),
        guest.offer,
    )
    if mapped_bytes:
        small = "the RAM is mapped from the image, and little is left to load"
        reasons = {"parallel_channels": small, "bypass_cache": small}
        negotiated = replace(negotiated, reasons=reasons)
    return RestorePlan(
        action="restore",
        path=request.path,
        layout=saved.layout,
        compressor=saved.compressor,
        run_afterwards=runs_afterwards(request.run_state, saved),
        launch=launch,
        checks=tuple(checks),
        negotiated=negotiated,
        reason="the image is ready and a QEMU waits for it",
        warnings=warnings + negotiated.degraded + access.warnings,
        access=access,
        mapped_bytes=mapped_bytes,
        prefetch=request.prefetch if mapped_bytes else None,
    )


def warnings_of(checks: t.Iterable[Check]) -> tuple[str, ...]:
    """What was accepted, for the operator to read."""
    return tuple(warning for check in checks for warning in check.warnings)


def plan_without_qemu(
    saved: SavedImage,
    request: RestoreRequest,
    *,
    launch: str | None,
    checks: t.Sequence[Check] = (),
    mapped_bytes: int = 0,
) -> RestorePlan:
    """The plan as far as image and host alone decide it."""
    warnings = check_image(saved, request) + warnings_of(checks)
    return RestorePlan(
        action="restore",
        path=request.path,
        layout=saved.layout,
        compressor=saved.compressor,
        run_afterwards=runs_afterwards(request.run_state, saved),
        launch=launch,
        checks=tuple(checks),
        negotiated=None,
        reason="the image is ready",
        warnings=warnings,
        mapped_bytes=mapped_bytes,
        prefetch=request.prefetch if mapped_bytes else None,
    )


def live_plan(
    saved: SavedImage,
    guest: Guest,
    request: RestoreRequest,
    decision: str,
    *,
    mapped_bytes: int = 0,
) -> RestorePlan:
    """The plan for a guest that an earlier restore has loaded already, ``mapped_bytes`` of its RAM
    by mapping them."""
    return RestorePlan(
        action=decision,
        path=request.path,
        layout=saved.layout,
        compressor=saved.compressor,
        run_afterwards=decision == "continue" or guest.run_state == "running",
        launch=None,
        negotiated=None,
        reason="this guest was restored from this image before",
        mapped_bytes=mapped_bytes,
        prefetch=request.prefetch if mapped_bytes and decision == "continue" else None,
    )
