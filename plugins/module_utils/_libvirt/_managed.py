# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Where libvirt keeps managed saves (src/qemu/qemu_conf.c, saveDir): it has no call that tells."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from .._errors import Refused

SYSTEM_DIRECTORY = "/var/lib/libvirt/qemu/save"
_LOCAL = ("qemu", "qemu+unix")


def managed_save_directory(uri: str) -> str:
    """The directory of the daemon at ``uri``.

    Raises `Refused` for a daemon whose files are not here: a managed save could be neither flushed
    nor looked at.
    """
    parts = urlsplit(uri)
    if parts.scheme in _LOCAL and not parts.netloc:
        if parts.path == "/system":
            return _there(SYSTEM_DIRECTORY, uri)
        if parts.path == "/session":
            home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
            return _there(os.path.join(home, "libvirt", "qemu", "save"), uri)
    raise Refused(
        f"managed does not go with uri {uri}: the file that libvirt writes is flushed and verified "
        "here, so this must run on the daemon's own host, with qemu:///system or qemu:///session."
    )


def _there(directory: str, uri: str) -> str:
    if not os.path.isdir(directory):
        raise Refused(
            f"The daemon at {uri} keeps its managed saves in {directory}, which is not there: it "
            "runs elsewhere, or was built for another place."
        )
    return directory


def managed_save_path(uri: str, name: str) -> str:
    """The file of the domain ``name``. Raises as `managed_save_directory`."""
    return os.path.join(managed_save_directory(uri), f"{name}.save")
