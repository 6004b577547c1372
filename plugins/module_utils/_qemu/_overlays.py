# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Making the overlays of a rehearsal, in a directory that nobody else reaches."""

from __future__ import annotations

import asyncio
import os
import shutil
import typing as t

from .._errors import Refused, StoreError
from ._rehearsal_disks import Overlay

_PROGRAM = "qemu-img"
_SECONDS = 60.0


def find_qemu_img(program: str) -> str:
    """qemu-img beside the QEMU ``program``, or in PATH. Raises `Refused` naming the package."""
    qemu = shutil.which(program)
    beside = shutil.which(_PROGRAM, path=os.path.dirname(qemu)) if qemu is not None else None
    found = beside or shutil.which(_PROGRAM)
    if found is None:
        raise Refused(
            f"The program {_PROGRAM} is not installed on this host; a rehearsal needs it for the "
            "overlays of the guest's disks. On Debian it is in the package qemu-utils, elsewhere "
            "in qemu-img."
        )
    return found


async def create_overlays(
    overlays: t.Sequence[Overlay], program: str, *, user_id: int, group_id: int
) -> None:
    """Make the files of ``overlays`` with the qemu-img of the QEMU ``program``, for a QEMU that
    runs as that user.

    Their directory must not yet belong to that user, who could put links in the way. Raises
    `Refused` without qemu-img, `StoreError` with its words when it fails.
    """
    if not overlays:
        return
    qemu_img = find_qemu_img(program)
    for overlay in overlays:
        await _create(qemu_img, overlay)
        os.chown(overlay.path, user_id, group_id, follow_symlinks=False)


async def _create(qemu_img: str, overlay: Overlay) -> None:
    process = await asyncio.create_subprocess_exec(
        qemu_img,
        *("create", "-q", "-f", "qcow2", "--", overlay.path, str(overlay.size_bytes)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        said, _none = await asyncio.wait_for(process.communicate(), _SECONDS)
    except BaseException as exc:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if not isinstance(exc, asyncio.TimeoutError):
            raise
        raise StoreError(
            f"qemu-img did not make the overlay {overlay.path} within {_SECONDS:g} seconds."
        ) from exc
    if process.returncode:
        words = said.decode("utf-8", "replace").strip()
        raise StoreError(f"qemu-img could not make the overlay {overlay.path}: {words}")
