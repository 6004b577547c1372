# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of systemd's whose units lie where, on other hosts, /etc/systemd/system is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host import (
    _competing_look,
    _competing_off,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing import find
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import Starter
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import HostGuest
from ansible_collections.vmfleet.suspend.tests.support.systemd_host import SystemdHost, why_not

_AS_BEFORE = ("ActiveState", "DropInPaths", "ExecStop", "LoadState", "Restart", "UnitFileState")


def competing_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemdHost]:
    """It, running, with nothing of this host's own libvirt to be seen; for a fixture."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "host").mkdir()
    host = SystemdHost(tmp_path / "host", [tmp_path, Path(tempfile.gettempdir())])
    monkeypatch.setattr(_competing_off, "_DIRECTORY", str(host.units))
    monkeypatch.setattr(_competing_look, "_CONFIGURATIONS", (str(tmp_path / "configuration"),))
    monkeypatch.setattr(_competing_look, "LIST_FILE", str(tmp_path / "list"))
    try:
        yield host.start()
    finally:
        host.close()


def enable(host: SystemdHost, name: str, file: str | None = None) -> None:
    """Have the boot start this unit; ``file``: of its template."""
    wants = host.units / "default.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(f"../{file or name}")
    host.systemctl("daemon-reload")


def reboot(host: SystemdHost) -> None:
    """End all that runs, and start again with the same units."""
    host.close()
    host.start()


def shown(host: SystemdHost, unit: str) -> dict[str, str]:
    """What has to be as before."""
    return {name: host.show(unit, name).partition(" ; start_time=")[0] for name in _AS_BEFORE}


def competing(
    host: SystemdHost,
    guest: HostGuest,
    uri: str | None = None,
    named_units: Mapping[str, str] | None = None,
) -> dict[str, Starter]:
    """Who competes for this guest, by kind."""
    found = host.run(find, uri, [guest], "/nonexistent/qemu.conf", named_units)
    return {one.kind: one for one in found}
