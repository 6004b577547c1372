# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Who else would start or stop guests of this host behind our back: pure decisions."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._guests import HostGuest

AUTOSTART = "autostart"
LIBVIRT_GUESTS = "libvirt-guests"
AUTO_SHUTDOWN = "auto_shutdown"
UNIT = "unit"
AGENT = "ha-agent"

GUESTS_SERVICE = "libvirt-guests.service"
# libvirt src/qemu/qemu.conf.in: what virtqemud does with running domains when the host goes down.
AUTO_SHUTDOWN_KNOBS = (
    "auto_shutdown_try_save",
    "auto_shutdown_try_shutdown",
    "auto_shutdown_poweroff",
)
# A program of an agent that starts guests it misses, as /proc/PID/comm names it, what it belongs
# to, and how it is held still.
AGENTS: t.Mapping[str, tuple[str, str]] = {
    "pacemakerd": ("Pacemaker", "pcs property set maintenance-mode=true"),
    "pve-ha-lrm": ("Proxmox VE's HA manager", "ha-manager crm-command node-maintenance enable"),
    "ganeti-noded": ("Ganeti", "gnt-cluster watcher pause"),
}


@dataclass(frozen=True)
class Starter:
    """``what``: what it would do, a sentence; ``guests``: whose, empty for all; ``blocks``: nothing
    is begun while it is there; ``can_disable``: this collection can switch it off for the while;
    ``advice``: what the operator can do."""

    kind: str
    name: str
    what: str
    guests: tuple[str, ...] = ()
    blocks: bool = True
    can_disable: bool = False
    advice: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "what": self.what,
            "guests": list(self.guests),
            "blocks": self.blocks,
            "can_disable": self.can_disable,
            "advice": self.advice,
        }


@dataclass(frozen=True)
class Service:
    """A systemd unit: ``enabled`` as systemctl is-enabled has it, ``active``: it is."""

    enabled: str
    active: bool


@dataclass(frozen=True)
class Observed:
    """What was seen of a host. ``restarts``: Restart= of the units that run guests, by unit;
    ``auto_shutdown``: the knobs that qemu.conf sets, with their values; ``agents``: programs of
    `AGENTS` that run."""

    libvirt_guests: Service | None = None
    auto_shutdown: t.Mapping[str, str] | None = None
    restarts: t.Mapping[str, str] | None = None
    agents: frozenset[str] = frozenset()


def starters(guests: t.Sequence[HostGuest], seen: Observed) -> tuple[Starter, ...]:
    """All of them, in a fixed order."""
    return (
        *_autostart(guests),
        *_libvirt_guests(guests, seen.libvirt_guests),
        *_auto_shutdown(guests, seen.auto_shutdown or {}),
        *_units(guests, seen.restarts or {}),
        *(_agent(program) for program in sorted(seen.agents)),
    )


def _autostart(guests: t.Sequence[HostGuest]) -> list[Starter]:
    names = tuple(guest.name for guest in guests if guest.autostart)
    if not names:
        return []
    return [
        Starter(
            AUTOSTART,
            "libvirt",
            "libvirt starts them when the host comes up, afresh and over their images",
            names,
            blocks=False,
            advice="Each one's autostart is switched off with its save, and on when it is back.",
        )
    ]


def _libvirt_guests(guests: t.Sequence[HostGuest], service: Service | None) -> list[Starter]:
    runs = service is not None and (service.active or service.enabled.startswith("enabled"))
    if not runs or not any(guest.source.domain for guest in guests):
        return []
    return [
        Starter(
            LIBVIRT_GUESTS,
            GUESTS_SERVICE,
            f"{GUESTS_SERVICE} suspends or shuts down the domains when the host goes down, and "
            "starts those of its list when it comes up",
            can_disable=True,
            advice=f"Mask it (systemctl mask {GUESTS_SERVICE}), or set competing to disable: it is "
            "masked until the guests are back.",
        )
    ]


def _auto_shutdown(guests: t.Sequence[HostGuest], knobs: t.Mapping[str, str]) -> list[Starter]:
    on = {name: value for name, value in knobs.items() if value != "none"}
    if not on or not any(guest.source.domain for guest in guests):
        return []
    said = ", ".join(f"{name} = {value}" for name, value in sorted(on.items()))
    return [
        Starter(
            AUTO_SHUTDOWN,
            "virtqemud",
            f"libvirt saves, shuts down or ends domains by itself when the host goes down ({said} "
            "in qemu.conf)",
            can_disable=True,
            advice="Set these to none, or set competing to disable: the settings stay, since the "
            "guests that are suspended are gone when the host goes down, and those that are left "
            "running are left to them.",
        )
    ]


def _units(guests: t.Sequence[HostGuest], restarts: t.Mapping[str, str]) -> list[Starter]:
    return [
        Starter(
            UNIT,
            guest.unit,
            f"systemd starts {guest.name} again when its QEMU ends: {guest.unit} has "
            f"Restart={restarts[guest.unit]}",
            (guest.name,),
            blocks=False,  # the guest's own save refuses, by its policy
            can_disable=True,
            advice="Name the unit as the guest's systemd_unit in option guests, or set competing "
            "to disable: the unit is stopped in place of QEMU, and started for the restore.",
        )
        for guest in guests
        if guest.unit is not None and restarts.get(guest.unit, "no") not in ("no", "")
    ]


def _agent(program: str) -> Starter:
    name, command = AGENTS[program]
    return Starter(
        AGENT,
        program,
        f"{name} ({program}) may start a guest that it misses, here or on another host",
        advice=f"Hold it still first, as with: {command}; stop it for the while; or take its "
        "guests out with exclude.",
    )


def record_of(starter: Starter, seen: Observed) -> dict[str, t.Any]:
    """What the journal keeps, so that it can be put back exactly."""
    record: dict[str, t.Any] = {"kind": starter.kind, "name": starter.name}
    if starter.kind == LIBVIRT_GUESTS and seen.libvirt_guests is not None:
        record["enabled"] = seen.libvirt_guests.enabled
        record["active"] = seen.libvirt_guests.active
    return record
