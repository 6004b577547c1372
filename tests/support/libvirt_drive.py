# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the use cases for domains of libvirt as the modules do."""

from __future__ import annotations

import asyncio
import typing as t
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_request import (
    DomainRestoreRequest,
    ManagedRestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_run import (
    restore_domain,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._managed_run import (
    restore_managed,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_request import (
    DomainSaveRequest,
    ManagedSaveRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_run import save_domain
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._managed_run import (
    save_managed,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import Result
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest


def save_by_libvirt(
    guest: LibvirtTinyGuest, path: Path, *, check_mode: bool = False, **options: t.Any
) -> Result:
    """What qemu_save with option domain returns; errors come as they are raised."""
    options = {
        "domain": guest.name,
        "uri": guest.host.uri,
        "qemu_conf": "/nonexistent/qemu.conf",
        **options,
    }
    request = DomainSaveRequest(path=str(path), **options)
    return asyncio.run(save_domain(request, check_mode=check_mode)).as_result()


def restore_by_libvirt(
    guest: LibvirtTinyGuest, path: Path, *, check_mode: bool = False, **options: t.Any
) -> Result:
    """What qemu_restore with option domain returns; errors come as they are raised."""
    options = {"domain": guest.name, "uri": guest.host.uri, **options}
    request = DomainRestoreRequest(path=str(path), **options)
    return asyncio.run(restore_domain(request, check_mode=check_mode)).as_result()


def save_as_managed(
    guest: LibvirtTinyGuest, *, check_mode: bool = False, **options: t.Any
) -> Result:
    """What qemu_save with option managed returns; errors come as they are raised."""
    options = {
        "domain": guest.name,
        "uri": guest.host.uri,
        "qemu_conf": "/nonexistent/qemu.conf",
        **options,
    }
    return asyncio.run(
        save_managed(ManagedSaveRequest(**options), check_mode=check_mode)
    ).as_result()


def restore_as_managed(
    guest: LibvirtTinyGuest, *, check_mode: bool = False, **options: t.Any
) -> Result:
    """What qemu_restore with option managed returns; errors come as they are raised."""
    options = {"domain": guest.name, "uri": guest.host.uri, **options}
    return asyncio.run(
        restore_managed(ManagedRestoreRequest(**options), check_mode=check_mode)
    ).as_result()
