# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""An image's life: partial, ready, spent; and how it passes from one to the next.

The magic is the commit point. Complete is ready, whatever the life block says; partial is spent
when the life block says so, and never finished otherwise. Each change writes the life block
before or after the magic such that a crash between the two leaves the truth.
"""

from __future__ import annotations

import enum
import errno
import os
import typing as t

from .._errors import StoreError
from ._header import MAGIC_COMPLETE, MAGIC_PARTIAL
from ._prefix import SECTOR_BYTES, Prefix, read_prefix
from ._record import LIFE_TAG, pack_block


class LifeState(enum.Enum):
    """``ready`` may be restored; the guest of a ``spent`` image has run since."""

    PARTIAL = "partial"
    READY = "ready"
    SPENT = "spent"


def life_block(state: LifeState, notes: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Payload of the life block; ``notes`` say how the image came into this state."""
    return {"state": state.value, "notes": dict(notes)}


def life_state(prefix: Prefix) -> LifeState:
    """The state that magic and life block tell together."""
    if prefix.header.complete:
        return LifeState.READY
    if prefix.life is not None and prefix.life.get("state") == LifeState.SPENT.value:
        return LifeState.SPENT
    return LifeState.PARTIAL


def life_notes(prefix: Prefix) -> t.Mapping[str, t.Any]:
    """Notes of the life block; empty where there is none."""
    notes = (prefix.life or {}).get("notes")
    return notes if isinstance(notes, dict) else {}


def _write(fd: int, path: str, data: bytes, offset_bytes: int) -> None:
    try:
        written = os.pwrite(fd, data, offset_bytes)
        if written != len(data):
            raise OSError(errno.EIO, f"only {written} of {len(data)} bytes were written")
        os.fsync(fd)
    except OSError as exc:
        raise StoreError(
            f"{path}: writing the image's state at offset {offset_bytes} failed: {exc.strerror}.",
            path=path,
            offset_bytes=offset_bytes,
        ) from exc


def _write_life(fd: int, path: str, state: LifeState, notes: t.Mapping[str, t.Any]) -> bool:
    offset = read_prefix(fd, path).life_offset_bytes
    if offset is None:
        return False
    block = pack_block(LIFE_TAG, life_block(state, notes))
    if len(block) > SECTOR_BYTES:
        raise ValueError(f"a life block of {len(block)} bytes does not fit into a sector")
    _write(fd, path, block.ljust(SECTOR_BYTES, b"\0"), offset)
    return True


def mark_spent(fd: int, path: str, notes: t.Mapping[str, t.Any]) -> bool:
    """No restore from now on. ``fd`` is open for writing and locked by the caller.

    False when the image has no room for a life block: then only the partial magic stops a
    restore, and readers call it partial. Raises `StoreError`; the image is as ready then as before
    unless the very last flush failed.
    """
    explained = _write_life(fd, path, LifeState.SPENT, notes)
    _write(fd, path, MAGIC_PARTIAL, 0)
    return explained


def mark_ready(fd: int, path: str, notes: t.Mapping[str, t.Any]) -> None:
    """May be restored again, because the vCPUs never ran. Raises `StoreError`."""
    _write(fd, path, MAGIC_COMPLETE, 0)
    _write_life(fd, path, LifeState.READY, notes)


def annotate(fd: int, path: str, notes: t.Mapping[str, t.Any]) -> bool:
    """Add to the notes of an image and leave its state; False without room for them. Raises
    `StoreError`."""
    prefix = read_prefix(fd, path)
    return _write_life(fd, path, life_state(prefix), {**life_notes(prefix), **notes})
