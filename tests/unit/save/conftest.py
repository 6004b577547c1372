# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model guest, and a store for its image."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _migration
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import (
    _hold,
    _leave,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    model_guest,
)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def image(store):
    return store / "guest.save"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses that only a real QEMU needs."""
    monkeypatch.setattr(_migration, "_CALM_SECONDS", 0.01)
    monkeypatch.setattr(_leave, "_QUIT_SECONDS", 0.1)
    monkeypatch.setattr(_hold, "_SETTLE_SECONDS", 0.5)


@pytest.fixture
def guest(tmp_path):
    with model_guest(tmp_path) as guest:
        yield guest


@pytest.fixture
def paused_guest(tmp_path):
    with model_guest(tmp_path, run_state="paused") as guest:
        yield guest
