# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator is told after a save was undone."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import Undone, advice
from ansible_collections.vmfleet.suspend.tests.support.values import IMAGE, SOCKET


@pytest.mark.parametrize(
    ("state", "before", "withdrawn", "words"),
    [
        ("running", "running", True, "The guest is running as before"),
        ("paused", "paused", True, "The guest is paused as before"),
        ("postmigrate", "paused", True, "run state postmigrate (before: paused); cont continues"),
        ("paused", "running", True, "run state paused (before: running); cont continues"),
        ("postmigrate", "running", False, "remove the image first, then continue the guest"),
        ("unknown", "running", False, "remove the image first, then continue the guest"),
        ("unknown", "running", True, f"monitor {SOCKET} does not answer"),
        ("crashed", "running", True, "QEMU itself has ended and the guest's RAM is lost"),
    ],
)
def test_the_advice_names_the_state_and_the_next_step(state, before, withdrawn, words):
    assert words in advice(Undone(state, withdrawn, withdrawn), before, IMAGE, SOCKET)


@pytest.mark.parametrize("state", ["running", "paused", "crashed"])
@pytest.mark.parametrize("removed", [True, False])
def test_only_an_image_that_is_still_there_is_named(state, removed):
    said = advice(Undone(state, True, removed), "running", IMAGE, SOCKET)
    assert (IMAGE in said) is not removed


def test_the_file_that_tells_another_run_what_to_put_back_is_named():
    said = advice(Undone("unknown", True, False), "running", IMAGE, SOCKET)
    assert f"{IMAGE} was kept" in said
    assert "run the save again" in said


@pytest.mark.parametrize("state", ["paused", "postmigrate", "unknown"])
def test_cont_is_never_advised_before_the_image_is_gone(state):
    said = advice(Undone(state, False, False), "running", IMAGE, SOCKET)
    assert said.index("remove the image first") < said.index("cont")
