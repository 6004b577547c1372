# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a guest that ran, and a QEMU that waits for one."""

from __future__ import annotations

import shutil

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import do_save
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    model_guest,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The image of a guest that ran, saved once for all tests."""
    directory = tmp_path_factory.mktemp("saved")
    with model_guest(directory) as guest:
        do_save(guest.qmp_socket, directory / "guest.save")
    return directory / "guest.save"


@pytest.fixture
def image(saved, tmp_path):
    return shutil.copy(saved, tmp_path / "guest.save")


@pytest.fixture
def qemu(tmp_path):
    """A QEMU of somebody else's that waits for a stream."""
    with model_guest(tmp_path, incoming=True) as guest:
        yield guest
