# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""More guests than this machine could run: a hundred scripted monitors on one host."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host
from ansible_collections.vmfleet.suspend.tests.support.model_host import model_guests

HUNDRED = 100


@pytest.fixture
def directory():
    """A short path: a socket's has room for 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vmfmodel"))
    yield path
    shutil.rmtree(path)


@pytest.mark.full
def test_a_hundred_guests_are_suspended_in_one_run(directory, tmp_path):
    with model_guests(directory, HUNDRED) as sockets:
        host = Host(tmp_path, qmp_sockets=[sockets])
        plan = host.suspend(check_mode=True)["plan"]
        assert len(plan["guests"]) == HUNDRED
        result = host.suspend(max_concurrent=20)
        assert {guest["state"] for guest in result["guests"]} == {"verified"}
        assert len(list(host.store.glob("*.save"))) == HUNDRED
        assert host.suspend()["changed"] is False
