# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Who else starts or stops guests of this host: what was seen of them, and what is told.

Values alone. `_competing_look` sees, `_competing` decides, `_competing_off` switches off and on.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field

from .._qemu._systemd_unit import Unit
from ._guests import HostGuest

AUTOSTART = "libvirt_autostart"
LIBVIRT_GUESTS = "libvirt_guests"
AUTO_SHUTDOWN = "auto_shutdown"
UNIT_RESTART = "unit_restart"
UNIT_START = "unit_start"
HA_AGENT = "ha_agent"
HOST_SHUTDOWN = "host_shutdown"


@dataclass(frozen=True)
class Starter:
    """Somebody who may start or stop guests behind a suspend's back.

    ``kind``: one of the names above; ``name``: of the service, unit, file or agent. ``what``: what
    it would do, and when. ``guests``: the names of those concerned, empty for all. ``blocks``:
    ``competing: refuse`` stops for it. ``can_disable``: `_competing_off` can switch it off.
    ``advice``: what the operator does by hand. ``handled``: it would compete, and something of ours
    keeps it from doing so.
    """

    kind: str
    name: str
    what: str
    guests: tuple[str, ...]
    blocks: bool
    can_disable: bool
    advice: str
    handled: bool = False

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        return {**asdict(self), "guests": list(self.guests)}


@dataclass(frozen=True)
class LibvirtGuests:
    """The service libvirt-guests, where there is one that is not masked.

    ``state``: systemd's ActiveState, or ``active``/``inactive`` under another init; ``enabled``:
    it starts with the host; ``systemd``: whether systemd runs it. ``settings``: of its
    configuration, only what is set there. ``listed``: UUIDs, in lower case, of the guests that it
    stopped and has not started since. ``switched_off``: our drop-in file is in effect.
    """

    state: str
    enabled: bool
    systemd: bool
    settings: t.Mapping[str, str]
    listed: frozenset[str]
    switched_off: bool


@dataclass(frozen=True)
class AutoShutdown:
    """What the libvirt daemon does with running guests when the host goes down, from qemu.conf.

    ``settings``: of ``auto_shutdown_*``, only what is set there. ``unread``: why the file could not
    be read, else None.
    """

    path: str
    settings: t.Mapping[str, t.Any]
    unread: str | None = None


@dataclass(frozen=True)
class GuestUnit:
    """The systemd unit that ends when the guest's QEMU does.

    ``restart``: its ``Restart=``, None when it cannot be learned. ``started_by``: units that start
    it, empty when it is only ever started by hand. ``named``: the operator gave it as the guest's
    ``systemd_unit``. ``held``: our drop-in file keeps it from being started.
    """

    guest: str
    unit: Unit
    restart: str | None
    started_by: tuple[str, ...]
    named: bool
    held: bool


@dataclass(frozen=True)
class ScheduledShutdown:
    """When the host is to go down, in ISO 8601, and how: reboot, poweroff and so on."""

    at: str
    mode: str


@dataclass(frozen=True)
class SeenAgent:
    """A high-availability agent that runs here. ``name``: as in `_competing_agents.AGENTS`.
    ``manages``: whether it has guests to manage at all, None when it cannot be learned; ``calm``:
    why it leaves them alone now, None when it does not."""

    name: str
    manages: bool | None
    calm: str | None


@dataclass(frozen=True)
class Observed:
    """Everything that was seen at one moment, of the guests that are to be suspended."""

    guests: tuple[HostGuest, ...]
    libvirt_guests: LibvirtGuests | None = None
    auto_shutdown: AutoShutdown | None = None
    units: tuple[GuestUnit, ...] = ()
    agents: tuple[SeenAgent, ...] = field(default=())
    shutdown: ScheduledShutdown | None = None
