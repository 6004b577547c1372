# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What libvirt itself and libvirt-guests would do to domains: pure functions over what was seen.

libvirt-guests.sh (tools/libvirt-guests.sh.in of libvirt 11.3) reads its configuration file at each
call, after it has set every default itself: variables in its environment do nothing. ``stop`` (the
unit's ExecStop=, so a stop, a restart, or the host going down) saves or shuts down whatever runs,
and writes that down in a list file; with a list file that is still there it does nothing at all.
``start`` starts what is in the list and does not run, and removes it; without one it does nothing.

auto_shutdown_* (src/qemu/qemu.conf.in of libvirt 11.2 and later): all "none" for the system's
daemon unless set; a user's daemon has try_save "persistent", the others "all".
"""

from __future__ import annotations

import re
import shlex
import typing as t
from urllib.parse import urlsplit

from ._competing_values import (
    AUTO_SHUTDOWN,
    AUTOSTART,
    LIBVIRT_GUESTS,
    AutoShutdown,
    LibvirtGuests,
    Starter,
)
from ._guests import HostGuest

SERVICE = "libvirt-guests.service"
LIST_FILE = "/var/lib/libvirt/libvirt-guests"
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Z_]+)=(.*)")
_BUSY = ("activating", "deactivating", "reloading")

# auto_shutdown_*, what each does, and its default for a user's daemon.
_ACTIONS = {
    "auto_shutdown_try_save": ("saves", "persistent"),
    "auto_shutdown_try_shutdown": ("shuts down", "all"),
    "auto_shutdown_poweroff": ("powers off", "all"),
}


def autostart(guests: t.Sequence[HostGuest]) -> list[Starter]:
    """libvirt boots these afresh when its daemon starts, unless the save of the domain holds that
    (`_libvirt._autostart`), which every save into a file does. Of a domain that is not saved it is
    no matter."""
    names = tuple(guest.name for guest in guests if guest.autostart)
    if not names:
        return []
    return [
        Starter(
            AUTOSTART,
            "autostart",
            "libvirt boots domains with autostart afresh when the host comes up.",
            names,
            blocks=False,
            can_disable=False,
            advice="Nothing: each save switches it off for its domain, each restore on again.",
            handled=True,
        )
    ]


def settings_of(text: str) -> dict[str, str]:
    """The assignments of libvirt-guests' configuration, which is read by a shell; the last wins.
    A value that only a shell could tell is as it stands there."""
    found = {}
    for line in text.splitlines():
        assignment = _ASSIGNMENT.match(line)
        if assignment is None:
            continue
        try:
            words = shlex.split(assignment[2], comments=True)
        except ValueError:
            words = [assignment[2]]
        found[assignment[1]] = words[0] if words else ""
    return found


def listed_in(text: str) -> frozenset[str]:
    """The guests in the list file: on each line a URI and then UUIDs."""
    return frozenset(word.lower() for line in text.splitlines() for word in line.split()[1:])


def libvirt_guests(service: LibvirtGuests, guests: t.Sequence[HostGuest]) -> list[Starter]:
    """What the service would do to those of the guests that it can see.

    It may do its worst in two ways. While guests are being saved, its ``stop`` saves or shuts them
    down too, and its list then has them started at the next boot, on top of our images; so an
    active service blocks. A list that has them already does the same, and nothing of ours takes it
    away. Once they are suspended neither happens: ``stop`` sees only guests that run.
    """
    seen = [guest for guest in guests if _sees(service.settings, guest)]
    names = tuple(guest.name for guest in seen)
    listed = tuple(guest.name for guest in seen if (guest.uuid or "").lower() in service.listed)
    active = service.state == "active"

    def found(
        what: str,
        advice: str,
        *,
        concerned: tuple[str, ...] = names,
        blocks: bool = True,
        can_disable: bool = False,
        handled: bool = False,
    ) -> list[Starter]:
        return [
            Starter(LIBVIRT_GUESTS, SERVICE, what, concerned, blocks, can_disable, advice, handled)
        ]

    if not names:
        return []
    if service.state in _BUSY:
        return found(
            f"libvirt-guests is {service.state}: it starts or stops guests at this moment.",
            "Wait until `systemctl status libvirt-guests` says that it is done.",
        )
    # The distributions differ in the default of ON_BOOT: unset counts as start.
    starts = service.settings.get("ON_BOOT", "start") == "start"
    if listed and starts and (active or service.enabled):
        return found(
            f"libvirt-guests has these guests on its list ({LIST_FILE}) from an earlier stop: it "
            "starts them afresh when it is started next, at the latest when the host comes up.",
            "Run `systemctl restart libvirt-guests` while they run: it leaves them alone, starts "
            "the others on its list and removes the list.",
            concerned=listed,
        )
    if active and service.switched_off:
        return found(
            "libvirt-guests is switched off by an earlier suspend: stopping it does nothing.",
            "Nothing: it is switched on again after the resume.",
            blocks=False,
            can_disable=True,
            handled=True,
        )
    if active:
        return found(
            "libvirt-guests saves or shuts down every guest that runs when it is stopped or "
            "restarted or the host goes down, and may start it again when the host comes up.",
            "Use competing: disable. Until the resume it then does nothing for guests that were "
            "left running either: shut them down before the host goes down."
            if service.systemd
            else "Take it out of its runlevels, and its lock file away, until the resume.",
            can_disable=service.systemd,
        )
    if service.enabled:
        return found(
            "libvirt-guests does not run now; when the host comes up it starts what is on its "
            "list, which has none of these guests.",
            "Nothing, but do not start and stop it before the suspend has ended.",
            blocks=False,
        )
    return []


def _sees(settings: t.Mapping[str, str], guest: HostGuest) -> bool:
    uri = guest.source.uri
    if uri is None or not any(_same_daemon(word, uri) for word in _uris(settings)):
        return False
    only = settings.get("PERSISTENT_ONLY", "default")
    # The distributions differ in the default of ON_SHUTDOWN: unset counts as the one that hits all.
    saves = settings.get("ON_SHUTDOWN", "shutdown") != "shutdown"
    spared = only == "true" or (saves and only != "false")
    return guest.persistent is not False or not spared


def _uris(settings: t.Mapping[str, str]) -> list[str]:
    return settings.get("URIS", "default").split()


def _same_daemon(configured: str, uri: str) -> bool:
    own = urlsplit(uri)
    if configured == "default":  # virsh's own, which is the system's for root
        return own.path == "/system"
    other = urlsplit(configured)
    return (own.scheme.split("+")[0], own.path) == (other.scheme.split("+")[0], other.path)


def auto_shutdown(seen: AutoShutdown, guests: t.Sequence[HostGuest]) -> list[Starter]:
    """What the daemon would do when the host goes down, or the session that a user's daemon is of.

    It never blocks. It acts at that moment alone, unlike libvirt-guests not when a service is
    restarted; only on guests that run then, so never on one that was suspended; and switching it
    off means to edit qemu.conf and to restart the daemon, after which, says libvirt, the guests
    that run misbehave at the host's shutdown. A host that goes down in the middle of a suspend ends
    the QEMUs that still hold guests, with or without this.
    """
    domains = [guest for guest in guests if guest.source.uri is not None]
    if not domains:
        return []
    if seen.unread is not None:
        return [
            _at_shutdown(
                seen,
                f"libvirt may save or end guests that run when the host goes down; not known, as "
                f"{seen.unread}.",
                domains,
            )
        ]
    session = any(urlsplit(guest.source.uri or "").path == "/session" for guest in domains)
    scopes = {
        name: str(seen.settings.get(name, default if session else "none"))
        for name, (_does, default) in _ACTIONS.items()
    }
    hit = [guest for guest in domains if any(_in_scope(word, guest) for word in scopes.values())]
    if not hit:
        return []
    does = [does for name, (does, _default) in _ACTIONS.items() if scopes[name] != "none"]
    again = seen.settings.get("auto_shutdown_restore", 1) != 0
    ending = "the session ends" if session else "the host goes down"
    return [
        _at_shutdown(
            seen,
            f"libvirt {' or '.join(does)} guests that run when {ending}"
            f"{', and starts them again with its daemon' if again else ''} (auto_shutdown_*).",
            hit,
        )
    ]


def _at_shutdown(seen: AutoShutdown, what: str, hit: t.Sequence[HostGuest]) -> Starter:
    return Starter(
        AUTO_SHUTDOWN,
        seen.path,
        what,
        tuple(guest.name for guest in hit),
        blocks=False,
        can_disable=False,
        advice="Do not shut down the host before the suspend has ended; guests that were suspended "
        "do not run and are not touched.",
    )


def _in_scope(scope: str, guest: HostGuest) -> bool:
    kind = "transient" if guest.persistent is False else "persistent"
    return scope in ("all", kind)
