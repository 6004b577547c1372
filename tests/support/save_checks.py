# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves of a model guest, and what must be true after one failed."""

from __future__ import annotations

import copy
import errno
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import Result, do_save
from ansible_collections.vmfleet.suspend.tests.support.migration_rules import MigrationSettings
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    ModelGuest,
    described,
)


def save(guest: ModelGuest, image: Path, **options: t.Any) -> Result:
    return do_save(guest.qmp_socket, image, **options)


def fails(guest: ModelGuest, image: Path, **options: t.Any) -> SaveFailed:
    """The `SaveFailed` that a save ends with."""
    with pytest.raises(SaveFailed) as failed:
        save(guest, image, **options)
    return failed.value


def settings(guest: ModelGuest) -> MigrationSettings:
    """The capabilities and parameters as they are now."""
    return copy.deepcopy(guest.qemu.settings)


def assert_as_before(
    guest: ModelGuest,
    store: Path,
    before: MigrationSettings,
    failed: SaveFailed,
    run_state: str = "running",
) -> None:
    """Guest, settings and store are as if nothing had been tried, and the error says so."""
    assert guest.qemu.run_state == run_state
    assert failed.facts["guest"]["state"] == run_state
    assert f"The guest is {run_state} as before. No image was left behind." in failed.message
    assert list(store.iterdir()) == []
    assert guest.qemu.fdsets == {}
    assert settings(guest) == before


def store_of(store: Path) -> dict[str, str]:
    """Name and state of every image, hidden ones too."""
    return {path.name: described(path).state for path in store.iterdir()}


def fail_fsync(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let the calls of os.fsync with these numbers fail, counted from 1."""
    real, count = os.fsync, [0]

    def fsync(fd: int) -> None:
        count[0] += 1
        if count[0] in numbers:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
