# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes to be observed, and processes that observe."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._surroundings import (
    Surroundings,
    observe,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import identity_of

_SECONDS = 10.0


def observed(pid: int) -> Surroundings:
    """How it is run. In the middle of execve(2) the kernel shows no argv: then once more."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        seen = observe(identity_of(pid))
        if seen is not None:
            return seen
        time.sleep(0.001)
    raise AssertionError(f"process {pid} cannot be observed")


def printed_by(script: str, *arguments: str) -> str:
    """What a Python process of its own prints, which may give up rights that this one needs. The
    collection is importable there."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()
