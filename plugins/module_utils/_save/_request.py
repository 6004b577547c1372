# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The options of a save."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .._measured import Measured
from .._qemu._systemd_unit import Unit


@dataclass(frozen=True)
class SaveRequest:
    """The options of qemu_save, None where left out. Units: bytes per second, seconds.

    ``unit`` and ``measured``: no options, but what a run finds to stop in place of telling QEMU to
    quit, and what is known of the store's speed.
    """

    path: str
    qmp_socket: str
    name: str | None = None
    uuid: str | None = None
    image_version: int | None = None
    image_format: str | None = None
    parallel_channels: int | None = None
    bypass_cache: bool | None = None
    max_bandwidth: int | None = None
    guest_state: str = "stopped"
    verify: str = "structure"
    domain_xml_file: str | None = None
    allow: frozenset[str] = frozenset()
    overwrite: bool = False
    timeout_seconds: float = 0
    qemu_conf: str = "/etc/libvirt/qemu.conf"
    systemd_unit: str | None = None
    unit: Unit | None = None
    measured: Measured | None = None

    def __post_init__(self) -> None:
        # One file, one name: runs find each other's leftovers by it.
        object.__setattr__(self, "path", os.path.abspath(self.path))
