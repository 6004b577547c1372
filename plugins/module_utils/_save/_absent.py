# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A save where nothing listens any more: done before, finished now, or impossible."""

from __future__ import annotations

import contextlib
import os

from .._errors import Refused
from .._image_record import QUIT_BY_SAVE, SavedImage, describe_target
from .._qemu._monitor import NoListener
from .._qemu._process import is_alive
from .._saveimage._life import annotate
from .._saveimage._lock import lock_image
from .._saveimage._publish import PartialImage, partial_path
from ._leftover import OTHER, Leftover, read_leftover
from ._naming import give_name
from ._outcome import SaveOutcome
from ._recovery import ABSENT, Decision, Remedy, decide
from ._request import SaveRequest
from ._target import already_saved


def save_of_nobody(
    request: SaveRequest, existing: SavedImage | None, cause: NoListener, *, check_mode: bool
) -> SaveOutcome:
    """Finish what a run that died left of this save, and say whether the guest was saved.

    Raises `Refused` when it was not.
    """
    actions, decision = _clean_up(request, check_mode=check_mode)
    published = decision is not None and decision.remedy is Remedy.PUBLISH
    there = existing if check_mode else describe_target(request.path)
    done, reason = True, decision.reason if decision is not None else ""
    if not (published and check_mode):
        alive = there is not None and there.saved_from is not None and is_alive(there.saved_from)
        done, reason = already_saved(request.path, request.qmp_socket, request.uuid, there, alive)
    if not done:
        raise Refused(
            f"{cause.message} There is no guest to save, and it was not saved before: {reason}."
            + "".join(f" {action[0].upper()}{action[1:]}." for action in actions),
            guest={"state": "absent"},
            actions=actions,
            changed=bool(actions),
        )
    if there is not None and not there.quit_by_save:
        actions += _note_the_end(there, check_mode=check_mode)
    image = there or existing
    name = image.name if image is not None else None
    changed = bool(actions) or published
    return SaveOutcome(
        changed=changed,
        message=f"The save of {name} to {request.path} was finished."
        if changed
        else f"{name} was saved to {request.path} before.",
        reason=reason,
        name=name,
        uuid=image.uuid if image is not None else None,
        pid=None,
        state_before="stopped",
        state_after="stopped",
        image_before=existing,
        image_state="ready",
        image_after=there,
        actions=tuple(actions),
    )


def _clean_up(request: SaveRequest, *, check_mode: bool) -> tuple[list[str], Decision | None]:
    """Publish or remove the unfinished file; nothing in check mode."""
    image = PartialImage.adopt(request.path, partial_path(request.path))
    if image is None:
        return [], None
    with contextlib.closing(image):
        leftover = read_leftover(image, None, ())
        if leftover is None:
            return [], None
        _refuse_if_held(leftover)
        decision = decide(leftover, ABSENT, None, wanted=True)
        if check_mode:
            return [], decision
        found = f"found {leftover.path}, left by a run that died: {decision.reason}"
        if decision.remedy is Remedy.PUBLISH:
            give_name(image, leftover, overwrite=request.overwrite)
            return [found, f"published {leftover.target}"], decision
        image.discard()
        return [found, f"removed {leftover.path}"], decision


def _refuse_if_held(leftover: Leftover) -> None:
    if leftover.owner == OTHER and leftover.source is not None:
        raise Refused(
            f"{leftover.path} was left by a run that died. Its guest is still held by the QEMU "
            f"process {leftover.source.pid}, whose monitor {leftover.qmp_socket} no longer "
            "answers: make it reachable again (another -qmp socket, for instance), then run the "
            "save again with that."
        )


def _note_the_end(image: SavedImage, *, check_mode: bool) -> list[str]:
    if not check_mode:
        fd = lock_image(image.path, write=True)
        try:
            annotate(fd, image.path, {QUIT_BY_SAVE: True})
        finally:
            os.close(fd)
    return ["noted in the image that its QEMU has ended"]
