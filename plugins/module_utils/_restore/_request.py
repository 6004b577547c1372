# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The options of a restore."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._measured import Measured

EAGER = "eager"
LAZY = "lazy"


@dataclass(frozen=True)
class RestoreRequest:
    """The options of qemu_restore, None where left out; ``measured``: what a run knows of the
    store's speed."""

    path: str
    qmp_socket: str | None = None
    argv: tuple[str, ...] | None = None
    parallel_channels: int | None = None
    bypass_cache: bool | None = None
    run_state: str = "as_saved"
    allow: frozenset[str] = frozenset()
    remove_image: bool = False
    rehearse: bool = False
    trust_recorded_argv: bool = False
    reset_shared_memory: bool = False
    systemd_unit: str | None = None
    load: str = EAGER
    prefetch: str = "background"
    timeout_seconds: float = 0
    measured: Measured | None = None

    def __post_init__(self) -> None:
        # One file, one name: runs find each other's leftovers by it.
        object.__setattr__(self, "path", os.path.abspath(self.path))
