# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Space that is held in a store until images need it."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _ballast
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._ballast import Ballast
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._space import still_held

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def store(tmp_path):
    """8 MiB large."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root; `make test` as root runs this")
    path = tmp_path / "store"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(path)], check=True)
    yield str(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def free(store):
    status = os.statvfs(store)
    return status.f_bavail * status.f_frsize


def test_what_is_held_nobody_else_gets_and_comes_back_bit_by_bit(store):
    before = free(store)
    ballast = Ballast.hold(store, 6 * MIB)
    assert (ballast.held_bytes, ballast.why_not) == (6 * MIB, None)
    assert free(store) == before - 6 * MIB
    assert os.listdir(store) == []  # a run that is killed leaves nothing
    ballast.release(4 * MIB)
    assert (ballast.held_bytes, free(store)) == (2 * MIB, before - 2 * MIB)
    ballast.release(9 * MIB)
    assert (ballast.held_bytes, free(store)) == (0, before)
    ballast.close()
    ballast.close()
    assert free(store) == before


def test_a_store_with_too_little_is_refused_with_both_figures(store):
    before = free(store)
    with pytest.raises(StoreError, match=rf"Holding {9 * MIB} bytes in .* {before} bytes are free"):
        Ballast.hold(store, 9 * MIB)
    assert free(store) == before


def test_a_filesystem_that_cannot_hold_space_holds_none_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(_ballast, "_fallocate", lambda _fd, _size: 95)  # EOPNOTSUPP
    ballast = Ballast.hold(str(tmp_path), MIB)
    assert ballast.held_bytes == 0
    assert "fallocate" in str(ballast.why_not)
    ballast.release(1)
    ballast.close()


def test_a_store_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="No such file or directory"):
        Ballast.hold(str(tmp_path / "none"), MIB)


def test_a_filesystem_that_only_says_that_it_holds_space_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_ballast, "_fallocate", lambda _fd, _size: 0)
    ballast = Ballast.hold(str(tmp_path), MIB)
    assert (ballast.held_bytes, "does not" in str(ballast.why_not)) == (0, True)


@pytest.mark.parametrize(
    ("claimed", "landed", "expected"),
    [
        (GIB // 2, 0, 0),
        (4 * GIB, 0, 3 * GIB),
        (4 * GIB, 2 * GIB, GIB),
        (4 * GIB, 4 * GIB, 0),
        (GIB, 2 * GIB, 0),
    ],
)
def test_a_save_under_way_finds_room_ahead_of_it(claimed, landed, expected):
    assert still_held(claimed, landed) == expected
