# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The unit that a running guest depends on."""

from __future__ import annotations

import os

from .._errors import Refused
from ._systemctl import SystemdError, properties, require_manager, system_runs
from ._systemd_drop_in import drop_in_path
from ._systemd_unit import Membership, Unit, own_unit, save_refusal, unit_of


def unit_of_process(pid: int) -> Membership | None:
    """The service that ``pid`` belongs to; None when it belongs to none or cannot be seen."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as source:
            return unit_of(source.read())
    except OSError:
        return None


async def unit_to_stop(pid: int, named: str | None) -> Unit | None:
    """The unit to stop in place of telling QEMU ``pid`` to quit; None when QEMU just quits.

    ``named``: the option systemd_unit. Changes nothing. Raises `Refused` when the guest would not
    stay ended, or ``named`` is not what runs it; `SystemdError`.
    """
    unit = None
    if named is not None:
        unit = own_unit(named, os.geteuid())
        require_manager(unit)
    member, restart = await depended_on(pid)
    found = member.unit if member is not None else None
    runs_in_named = False
    if unit is not None and member is not None and unit.user_id == member.unit.user_id:
        # The name may be an alias of the unit's.
        runs_in_named = (await properties(unit))["ControlGroup"] == member.control_group
    refusal = save_refusal(found, restart, unit, runs_in_named)
    if refusal is not None:
        raise Refused(refusal)
    return found if unit is not None else None


async def depended_on(pid: int) -> tuple[Membership | None, str | None]:
    """The service that ends when this process does, and its ``Restart=`` if that can be learned."""
    member = unit_of_process(pid)
    if member is None or (member.unit.user_id is None and not system_runs()):
        return None, None  # or a systemd outside of this container, which knows no QEMU
    try:
        shown = await properties(member.unit)
    except (Refused, SystemdError):
        return member, None
    if shown["ControlGroup"] != member.control_group:
        return member, None  # of another manager
    if not _ends_with(int(shown["MainPID"] or 0), pid):
        return None, None
    # The drop-in file of a killed restore hides the unit's own Restart=.
    return member, None if os.path.exists(drop_in_path(member.unit)) else shown["Restart"]


def _ends_with(main_pid: int, pid: int) -> bool:
    # A unit without a main process ends with its last one. A main process that is no ancestor, such
    # as the cron daemon of a QEMU that daemonized, does not wait for the guest.
    ancestor = pid
    while ancestor > 1 and main_pid not in (0, ancestor):
        ancestor = _parent(ancestor)
    return ancestor > 1


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
