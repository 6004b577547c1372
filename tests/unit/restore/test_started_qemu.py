# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A QEMU that a restore starts itself: it lives on with its guest, or is ended."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import launch
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import identify
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _starter
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    break_link,
    described,
    model_guest,
    once,
)

ARGV = ("sh", "-S", "-m", "64")


class OwnQemu:
    """Stands in for `launch`: a real process, and a model on the socket once it was started."""

    def __init__(self, stack, directory, **fields):
        self._stack, self._directory, self._fields = stack, directory, fields
        self.argv, self.pid, self.model = None, 0, None

    async def __call__(self, argv, surroundings=None):
        self.argv = list(argv)
        self.model = self._stack.enter_context(
            model_guest(self._directory, incoming=True, **self._fields)
        )
        launched = await launch(["sleep", "600"])
        self.pid = launched.pid
        return launched

    def end(self):
        if identify(self.pid) is not None:
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def start_own(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:

        def start(**fields):
            own = OwnQemu(stack, tmp_path, **fields)
            stack.callback(own.end)
            monkeypatch.setattr(_starter, "launch", own)
            return own

        yield start


def test_a_started_qemu_waits_for_the_image_and_lives_on(start_own, image, tmp_path):
    own = start_own()
    result = do_restore(tmp_path / "qmp", image, argv=ARGV)
    assert own.argv[:3] == ["sh", "-m", "64"]
    assert own.argv[-3:] == ["-incoming", "defer", "-S"]
    assert result["guest"]["state"] == "running"
    assert identify(own.pid) is not None


def test_a_started_qemu_whose_load_failed_is_ended(start_own, image, tmp_path):
    own = start_own(ends_as="failed")
    with pytest.raises(RestoreFailed, match="was ended; no guest runs"):
        do_restore(tmp_path / "qmp", image, argv=ARGV)
    assert identify(own.pid) is None
    assert described(image).state == "ready"


def test_a_started_qemu_that_does_not_fit_is_ended(start_own, image, tmp_path):
    own = start_own(machine="pc-q35-10.0")
    with pytest.raises(Refused, match="pc-q35-10"):
        do_restore(tmp_path / "qmp", image, argv=ARGV)
    assert identify(own.pid) is None


def test_a_started_qemu_whose_guest_may_run_is_left_alone(start_own, image, tmp_path):
    own = start_own()
    begin = own.__call__

    async def lose_the_answer(argv, surroundings=None):
        launched = await begin(argv, surroundings)
        once(own.model, "cont", break_link)
        return launched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_starter, "launch", lose_the_answer)
        with pytest.raises(RestoreFailed, match="not known"):
            do_restore(tmp_path / "qmp", image, argv=ARGV)
    assert identify(own.pid) is not None
    assert described(image).state == "spent"
