# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""systemd units that would start a guest again: pure functions over what was seen of them.

Two ways, and a unit may have both: ``Restart=`` when its QEMU ends (systemd.service(5)), and
another unit that wants it, which is what ``systemctl enable`` makes, when the host comes up. Either
gives a fresh guest on the disks of the saved one.
"""

from __future__ import annotations

from ._competing_values import UNIT_RESTART, UNIT_START, GuestUnit, Starter


def unit_restart(seen: GuestUnit) -> list[Starter]:
    """``Restart=``: a save that is given the unit's name stops the unit instead of telling QEMU to
    quit, and refuses without."""
    if seen.restart == "no":
        return []
    how = f"has Restart={seen.restart}" if seen.restart else "may have Restart= (not to be learned)"
    return [
        Starter(
            UNIT_RESTART,
            seen.unit.name,
            f"{_start_of(seen)} {how}: it starts a fresh {seen.guest} as soon as its QEMU ends.",
            (seen.guest,),
            blocks=not seen.named,
            can_disable=False,
            advice=(
                "Nothing: the save stops the unit instead."
                if seen.named
                else f"Give systemd_unit: {seen.unit.name} in this guest's entry of guests, so "
                "that the unit is stopped instead, if it is there for this guest alone."
            ),
            handled=seen.named,
        )
    ]


def unit_start(seen: GuestUnit) -> list[Starter]:
    """Started by other units: at the next boot, or by a socket, a path or a timer at any time."""
    if not seen.started_by:
        return []
    mine = seen.unit.user_id is None
    user = "" if mine else " --user"
    return [
        Starter(
            UNIT_START,
            seen.unit.name,
            f"{_start_of(seen)} is started by {', '.join(seen.started_by)}, at the latest when the "
            f"host comes up: a fresh {seen.guest}.",
            (seen.guest,),
            blocks=not seen.held,
            can_disable=mine,
            advice=(
                "Nothing: a drop-in file lets only a restore start it."
                if seen.held
                else f"Run `systemctl{user} disable {seen.unit.name}`, and enable it again after "
                "the resume."
            ),
            handled=seen.held,
        )
    ]


def _start_of(seen: GuestUnit) -> str:
    text = str(seen.unit)
    return text[0].upper() + text[1:]
