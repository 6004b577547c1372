# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Waiting for a QEMU to be gone."""

from __future__ import annotations

import asyncio
import time

from ._process import ProcessIdentity, is_alive

_POLL_SECONDS = 0.01


async def wait_for_exit(process: ProcessIdentity, timeout_seconds: float) -> bool:
    """Wait until the process is gone; False when it outlived ``timeout_seconds``."""
    end = time.monotonic() + timeout_seconds
    while is_alive(process):
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True
