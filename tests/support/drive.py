# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the use cases as the modules do, and looking at a guest from outside."""

from __future__ import annotations

import asyncio
import os
import typing as t
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_info import list_images
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import interruptible
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._guest import (
    Guest,
    observe,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._run import restore
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._run import save
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

Result = dict[str, t.Any]


def do_save(
    qmp_socket: object,
    path: object,
    *,
    check_mode: bool = False,
    signals: bool = False,
    **options: t.Any,
) -> Result:
    """What qemu_save returns; errors come as they are raised.

    With ``signals`` it handles them as the module does, which only a main thread may.
    """
    options.setdefault("qemu_conf", "/nonexistent/qemu.conf")
    request = SaveRequest(path=str(path), qmp_socket=str(qmp_socket), **options)
    work = save(request, check_mode=check_mode)
    return asyncio.run(interruptible(work) if signals else work).as_result()


def do_restore(
    qmp_socket: object, path: object, *, check_mode: bool = False, **options: t.Any
) -> Result:
    """What qemu_restore returns; errors come as they are raised."""
    request = RestoreRequest(path=str(path), qmp_socket=str(qmp_socket), **options)
    return asyncio.run(restore(request, check_mode=check_mode)).as_result()


def bring_back(path: object, *, check_mode: bool = False, **options: t.Any) -> Result:
    """What qemu_restore returns when it is told the image alone; errors come as they are raised."""
    request = RestoreRequest(path=str(path), **options)
    return asyncio.run(restore(request, check_mode=check_mode)).as_result()


def save_away(guest: TinyGuest, store: Path, **options: t.Any) -> Path:
    """A guest that ran is saved and gone; returns the path of its image."""
    path = store / "guest.save"
    do_save(guest.qmp_socket, path, **options)
    assert not guest.alive()
    return path


def goes_on(guest: TinyGuest) -> bool:
    """Whether the guest runs and finds its memory as it left it."""
    guest.wait_passes(2)
    return guest.status() == "running" and guest.mismatches == []


def image_info(path: object) -> Result:
    """The one image at ``path`` as qemu_saveimage_info describes it, memory map included."""
    (image,) = list_images(str(path), read_memory_map=True).images
    return image


def look(qmp_socket: object) -> Guest:
    """One observation of a guest, as a plan is made from."""

    async def observe_once() -> Guest:
        monitor = await Monitor.connect(str(qmp_socket))
        try:
            return await observe(monitor)
        finally:
            await monitor.close()

    return asyncio.run(observe_once())


def leftovers(directory: Path) -> list[str]:
    """Names in a store other than published images."""
    return sorted(name for name in os.listdir(directory) if not name.endswith(".save"))
