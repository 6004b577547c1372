# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The options of a save through libvirt."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._measured import Measured


@dataclass(frozen=True)
class DomainSaveRequest:
    """Those options of qemu_save that go with ``domain``, None where left out. Units: seconds;
    ``measured``: what a run knows of the store's speed."""

    path: str
    domain: str
    uri: str
    image_version: int | None = None
    image_format: str | None = None
    parallel_channels: int | None = None
    bypass_cache: bool | None = None
    domain_xml_file: str | None = None
    overwrite: bool = False
    timeout_seconds: float = 0
    qemu_conf: str = "/etc/libvirt/qemu.conf"
    measured: Measured | None = None

    def __post_init__(self) -> None:
        # libvirt takes a relative path from its own directory (T8).
        object.__setattr__(self, "path", os.path.abspath(self.path))


@dataclass(frozen=True)
class ManagedSaveRequest:
    """Those that go with ``managed``: libvirt decides where and how it writes."""

    domain: str
    uri: str
    bypass_cache: bool | None = None
    timeout_seconds: float = 0
    qemu_conf: str = "/etc/libvirt/qemu.conf"
