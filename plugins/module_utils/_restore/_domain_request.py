# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The options of a restore through libvirt."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._measured import Measured


@dataclass(frozen=True)
class DomainRestoreRequest:
    """Those options of qemu_restore that go with ``domain``, None where left out. Units:
    seconds."""

    path: str
    domain: str
    uri: str
    parallel_channels: int | None = None
    bypass_cache: bool | None = None
    run_state: str = "as_saved"
    allow: frozenset[str] = frozenset()
    remove_image: bool = False
    timeout_seconds: float = 0
    measured: Measured | None = None

    def __post_init__(self) -> None:
        # libvirt takes a relative path from its own directory (T8).
        object.__setattr__(self, "path", os.path.abspath(self.path))


@dataclass(frozen=True)
class ManagedRestoreRequest:
    """Those that go with ``managed``."""

    domain: str
    uri: str
    bypass_cache: bool | None = None
    run_state: str = "as_saved"
