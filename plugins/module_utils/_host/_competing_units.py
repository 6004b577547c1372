# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Looking for those who compete, switching them off for the while, and on again."""

from __future__ import annotations

import os
import typing as t

from .._errors import VmfleetError
from .._libvirt._qemu_conf import read_settings
from .._qemu._systemctl import SystemdError, properties, system_runs, systemctl
from .._qemu._systemd_unit import Unit
from ._competing import (
    AGENTS,
    AUTO_SHUTDOWN_KNOBS,
    GUESTS_SERVICE,
    LIBVIRT_GUESTS,
    Observed,
    Service,
)
from ._guests import HostGuest

_SERVICE = Unit(GUESTS_SERVICE)


async def observe(guests: t.Sequence[HostGuest], qemu_conf: str) -> Observed:
    """What there is on this host. Raises `StoreError`, `Refused` for a qemu.conf that libvirt could
    not read either."""
    domains = any(guest.source.domain for guest in guests)
    return Observed(
        libvirt_guests=await _libvirt_guests() if domains else None,
        auto_shutdown=_auto_shutdown(qemu_conf) if domains else None,
        restarts=await _restarts(guests),
        agents=agents(),
    )


async def _libvirt_guests() -> Service | None:
    if not system_runs():
        return None
    try:
        shown = await systemctl(
            _SERVICE, "show", "--property=LoadState,UnitFileState,ActiveState", "--", GUESTS_SERVICE
        )
    except SystemdError:
        return None
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    if values.get("LoadState") in (None, "not-found"):
        return None
    return Service(values.get("UnitFileState", ""), values.get("ActiveState") == "active")


def _auto_shutdown(path: str) -> dict[str, str]:
    settings = read_settings(path)
    return {name: str(settings[name].value) for name in AUTO_SHUTDOWN_KNOBS if name in settings}


async def _restarts(guests: t.Sequence[HostGuest]) -> dict[str, str]:
    found: dict[str, str] = {}
    for guest in guests:
        if guest.unit is None or guest.unit in found or not system_runs():
            continue
        try:
            found[guest.unit] = (await properties(Unit(guest.unit)))["Restart"]
        except VmfleetError:  # a user's unit, or one of another manager: its save will tell
            continue
    return found


def agents(proc: str = "/proc") -> frozenset[str]:
    """Programs of `AGENTS` that run on this host."""
    found = set()
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                with open(f"{proc}/{name}/comm", encoding="utf-8", errors="replace") as comm:
                    program = comm.read().rstrip("\n")
            except OSError:  # it has ended
                continue
            if program in AGENTS:
                found.add(program)
    return frozenset(found)


async def switch_off(record: t.Mapping[str, t.Any]) -> list[str]:
    """As recorded, for the while; does nothing the second time. Raises `SystemdError`.

    libvirt-guests is masked and not stopped: stopping it is what makes it suspend guests, and a
    unit that is active without being enabled would still be stopped when the host goes down.
    """
    if record["kind"] != LIBVIRT_GUESTS:
        return []
    await systemctl(_SERVICE, "mask", "--", GUESTS_SERVICE)
    return [f"masked {GUESTS_SERVICE}"]


async def put_back(record: t.Mapping[str, t.Any]) -> list[str]:
    """As it was; does nothing the second time. Raises `SystemdError`."""
    if record["kind"] != LIBVIRT_GUESTS or record.get("enabled") == "masked":
        return []
    await systemctl(_SERVICE, "unmask", "--", GUESTS_SERVICE)
    actions = [f"unmasked {GUESTS_SERVICE}"]
    if record.get("active"):
        # After a reboot it was not started; its list of guests is empty, as they were suspended.
        await systemctl(_SERVICE, "start", "--", GUESTS_SERVICE)
        actions.append(f"started {GUESTS_SERVICE}")
    return actions
