# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux labels without SELinux: a kernel without it keeps them as plain attributes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _guest
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    Confinement,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._label import (
    read_label,
    write_label,
)

STORE_LABEL = "system_u:object_r:virt_var_lib_t:s0"
IMAGE_LABEL = "system_u:object_r:svirt_image_t:s0:c107,c434"
SVIRT = Confinement("selinux", "system_u:system_r:svirt_t:s0:c107,c434", "enforcing", IMAGE_LABEL)


def label_of(path: str | os.PathLike[str]) -> str:
    """The label of the file at ``path``; empty without one."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_label(fd)
    finally:
        os.close(fd)


def set_label(path: os.PathLike[str], label: str) -> None:
    """Label the file at ``path``."""
    fd = os.open(path, os.O_RDONLY)
    try:
        write_label(fd, label)
    finally:
        os.close(fd)


def needs_labels(directory: Path) -> None:
    """Skip the test where labels cannot be played with: only root may set them, and a live SELinux
    takes none that its policy does not know."""
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("SELinux is active here; these tests make labels up")
    trial = directory / "label-trial"
    trial.touch()
    try:
        set_label(trial, STORE_LABEL)
    except OSError as exc:
        pytest.skip(f"labels cannot be set here: {exc.strerror}")
    finally:
        trial.unlink()


def confine(monkeypatch: pytest.MonkeyPatch, confinement: Confinement = SVIRT) -> None:
    """Let every QEMU look as if it were confined so."""
    monkeypatch.setattr(_guest, "confinement_of", lambda _pid: confinement)
