# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A restore that fails: what is ended, and what the operator is told."""

from __future__ import annotations

import asyncio
import typing as t

from .._errors import Refused, VmfleetError
from .._failure import facts_of, words_of
from ._load import RestoreSession
from ._starter import Starter


class RestoreFailed(VmfleetError):
    """A restore that had begun failed; the message says what became of image and QEMU."""


async def fail(
    session: RestoreSession, starter: Starter, qmp_socket: str, cause: BaseException
) -> t.NoReturn:
    """End the QEMU that this run started, if its vCPUs never ran, and say what is left."""
    step, said = session.step, ""
    if starter.launched is not None:
        said = starter.launched.stderr_tail()
        if not session.may_have_run:
            await starter.end()
    if isinstance(cause, Refused) or not isinstance(
        cause, (VmfleetError, OSError, asyncio.CancelledError)
    ):
        raise cause
    raise RestoreFailed(
        f"Restoring {session.image.path} failed while {step}: {words_of(cause)}"
        + (f" QEMU said: {said}." if said else "")
        + f" {_advice(session, starter, qmp_socket)}",
        **facts_of(cause),
        step=step,
        guest={
            "name": session.image.name,
            "uuid": session.image.uuid,
            "state": _guest_state(session, starter),
        },
        image={"path": session.image.path, "state": session.image_state},
        actions=list(session.actions),
        changed=session.may_have_run,
    ) from cause


def _guest_state(session: RestoreSession, starter: Starter) -> str:
    if session.may_have_run and session.guest_state != "running":
        return "unknown"
    return "absent" if starter.ended else session.guest_state


def _advice(session: RestoreSession, starter: Starter, qmp_socket: str) -> str:
    state = session.image_state
    if session.guest_state == "running":
        return f"The guest runs, and the image is {state}."
    if session.may_have_run:
        return (
            f"The image is {state}; whether the guest's vCPUs ran is not known. Look with "
            f"query-status on {qmp_socket}."
        )
    kept = f"The image is unharmed and {state}."
    if starter.launched is not None:
        return f"{kept} The QEMU that this run started was ended; no guest runs."
    if not session.load_began:
        return f"{kept} The QEMU on {qmp_socket} still waits."
    return (
        f"{kept} The QEMU on {qmp_socket} cannot be used for another try: end it and start a new "
        "one."
    )
