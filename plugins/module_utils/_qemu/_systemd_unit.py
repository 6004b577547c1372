# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which systemd unit a guest runs under, and whether it can be saved as it is: pure functions.

systemd starts a service with ``Restart=`` again when its process ends, however it ended
(systemd.service(5)). A guest that was saved would come up fresh on the disks of its image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._errors import Refused

_SERVICE = ".service"
_OTHER_KINDS = (
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
)
_NAME = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.service")
_NAME_CHARACTERS = 255
_USER_MANAGER = re.compile(r"user@([0-9]+)\.service")


@dataclass(frozen=True)
class Unit:
    """A service. ``user_id``: of the user whose manager runs it, None for the system's."""

    name: str
    user_id: int | None = None

    def __str__(self) -> str:
        owner = "" if self.user_id is None else f" of the user {self.user_id}"
        return f"the systemd unit {self.name}{owner}"


@dataclass(frozen=True)
class Membership:
    """A process runs under ``unit``, in ``control_group`` (its path in systemd's hierarchy)."""

    unit: Unit
    control_group: str


def own_unit(name: str, user_id: int) -> Unit:
    """The unit that the option ``systemd_unit`` names to a run by this user.

    Raises `Refused` when it is no name of a service.
    """
    whole = name if name.endswith((_SERVICE, *_OTHER_KINDS)) else name + _SERVICE
    if not _NAME.fullmatch(whole) or len(whole) > _NAME_CHARACTERS:
        raise Refused(
            f"systemd_unit {name!r} does not name a service that can be started. Give its name as "
            "systemctl shows it, such as guest.service, without a directory."
        )
    return Unit(whole, user_id or None)


def unit_of(cgroup_text: str) -> Membership | None:
    """The innermost service that a process belongs to, from the text of ``/proc/PID/cgroup``.

    None where there is none. A scope is none: systemd did not start what runs in it (a login, our
    own launch, a guest of libvirt) and never starts it again. systemd's hierarchy is
    ``name=systemd`` (cgroup v1), ``0::`` (v2), or both (hybrid).
    """
    paths = {}
    for line in cgroup_text.splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd" or (number, controllers) == ("0", ""):
            paths[controllers] = path
    found = (_unit_in(paths[controllers]) for controllers in sorted(paths, reverse=True))
    return next((membership for membership in found if membership is not None), None)


def _unit_in(path: str) -> Membership | None:
    parts = path.split("/")
    for index in range(len(parts) - 1, 0, -1):
        if parts[index].endswith(".scope"):
            return None
        if parts[index].endswith(_SERVICE):
            managers = map(_USER_MANAGER.fullmatch, parts[:index])
            users = [int(manager[1]) for manager in managers if manager is not None]
            # systemd puts one "_" before a name that the kernel would take for a file of its own.
            name = parts[index][1:] if parts[index].startswith("_") else parts[index]
            unit = Unit(name, users[-1] if users else None)
            return Membership(unit, "/".join(parts[: index + 1]))
    return None


def save_refusal(
    found: Unit | None, restart: str | None, named: Unit | None, runs_in_named: bool
) -> str | None:
    """Why the guest must not be saved so; None when it may be.

    ``found``: the unit that ends when the guest's process does; ``restart``: its ``Restart=``, None
    when that cannot be learned; ``named``: the option systemd_unit; ``runs_in_named``: whether that
    is ``found``.
    """
    if named is not None:
        if runs_in_named:
            return None
        if found is None:
            return (
                f"The guest does not run as {named}: systemd would not end it with that unit. "
                "Leave systemd_unit out, or give the unit whose main process is the guest's QEMU."
            )
        return (
            f"The guest runs under {found}, not under {named}. Give systemd_unit={found.name} to a "
            f"run by {_owner(found)}."
        )
    if found is None or restart == "no":
        return None
    if restart is None:
        return (
            f"The guest runs under {found}, and it cannot be learned whether systemd starts it "
            "again: that would be a fresh guest on the disks of the saved one. Give "
            f"systemd_unit={found.name} to a run by {_owner(found)}, so that the unit is stopped "
            "instead, if it is there for this guest alone."
        )
    return (
        f"The guest runs under {found}, which has Restart={restart}: when its QEMU ends, systemd "
        "starts a fresh guest on the disks of the saved one. Give "
        f"systemd_unit={found.name} to a run by {_owner(found)}, so that the unit is stopped "
        "instead, if it is there for this guest alone."
    )


def _owner(unit: Unit) -> str:
    return "root" if unit.user_id is None else f"the user {unit.user_id}"
