# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The domains that a libvirt daemon of this host has defined, from its own files: without the
binding, and whether or not it runs.

Source: libvirt src/conf/domain_conf.c, virDomainDefSave; the directory stands beside qemu.conf.
"""

from __future__ import annotations

import os
import typing as t

_MOST_BYTES = 10 << 20


def definitions_directory(qemu_conf: str) -> str:
    """Where the daemon that reads ``qemu_conf`` keeps its domains."""
    return os.path.join(os.path.dirname(qemu_conf), "qemu")


def definitions(directory: str) -> t.Iterator[tuple[str, str]]:
    """Path and text of each definition that can be read; none where there is no libvirt."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if not name.endswith(".xml") or not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as source:
                text = source.read(_MOST_BYTES)
        except (OSError, UnicodeDecodeError):
            continue
        yield path, text
