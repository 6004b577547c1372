# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a QEMU command line takes for itself when it starts, and which servers it needs.

A second QEMU on the same words does not fail on a UNIX socket: it removes the path and binds it
anew, and the first one is left running with a monitor that nobody reaches (QEMU
util/qemu-sockets.c, unix_listen_saddr).
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ._command_line import Option, options_of
from ._endpoints import Endpoint, chardev, device, gdb, netdev, server_of_object, spice, vnc
from ._pairs import pairs_of

PIDFILE = "pidfile"

_Reader = t.Callable[[str, str], t.Iterable[Endpoint]]


@dataclass(frozen=True)
class Claim:
    """``kind``: socket, tcp, udp or pidfile. ``where``: an absolute path, ``@`` and a name in the
    abstract namespace, or ``host:port`` (host ``*``: every address). ``option``: name and id."""

    kind: str
    where: str
    option: str


@dataclass(frozen=True)
class Peer:
    """A server that must answer when QEMU starts. ``kind``: socket or tcp; else as `Claim`."""

    kind: str
    where: str
    option: str


def claims_of(argv: t.Sequence[str], cwd: str) -> tuple[Claim, ...]:
    """What ``argv``, program included, binds when started in ``cwd``. -incoming is left out: it
    gets another one. What a file named by -readconfig says is not seen."""
    claims = [
        Claim(endpoint.kind, endpoint.where, option)
        for option, endpoint in _endpoints(argv, cwd)
        if endpoint.serves
    ]
    pidfiles = [option.value for option in options_of(argv[1:]) if option.name == "pidfile"]
    if pidfiles and pidfiles[-1] is not None:  # QEMU writes the last one only
        claims.append(Claim(PIDFILE, os.path.join(cwd, pidfiles[-1]), "-pidfile"))
    return tuple(dict.fromkeys(claims))


def peers_of(argv: t.Sequence[str], cwd: str) -> tuple[Peer, ...]:
    """Servers that ``argv`` connects to once, as it starts: those of vhost-user devices and of an
    emulated TPM, among others. Left out: those that it tries again (``reconnect-ms``), and those
    that it is itself (the chardevs of a COLO comparison)."""
    own = {(claim.kind, claim.where) for claim in claims_of(argv, cwd)}
    peers = [
        Peer(endpoint.kind, endpoint.where, option)
        for option, endpoint in _endpoints(argv, cwd)
        if not endpoint.serves and (endpoint.kind, endpoint.where) not in own
    ]
    return tuple(dict.fromkeys(peers))


def _endpoints(argv: t.Sequence[str], cwd: str) -> t.Iterator[tuple[str, Endpoint]]:
    spices: list[str] = []
    for option in options_of(argv[1:]):
        if option.name == "spice" and option.value is not None:
            spices.append(option.value)
            continue
        for endpoint in _endpoints_of(option, cwd):
            yield _label(option), endpoint
    for endpoint in spice(",".join(spices), cwd):
        yield "-spice", endpoint


def _endpoints_of(option: Option, cwd: str) -> t.Iterable[Endpoint]:
    if option.name == "s":
        return gdb("tcp::1234", cwd)
    reader = _READERS.get(option.name or "")
    return reader(option.value, cwd) if reader is not None and option.value is not None else ()


def _label(option: Option) -> str:
    keys = dict(pairs_of(option.value)) if option.name in _NAMED and option.value else {}
    return f"-{option.name} {keys['id']}" if keys.get("id") else f"-{option.name}"


def _chardev(text: str, cwd: str) -> t.Iterable[Endpoint]:
    return chardev(dict(pairs_of(text, "backend")), cwd)


def _display(text: str, cwd: str) -> t.Iterable[Endpoint]:
    return vnc(text[len("vnc=") :], cwd) if text.startswith("vnc=") else ()


_NAMED = ("chardev", "netdev", "nic", "object")
_READERS: t.Mapping[str, _Reader] = {
    "chardev": _chardev,
    "debugcon": device,
    "display": _display,
    "gdb": gdb,
    "monitor": device,
    "net": netdev,
    "netdev": netdev,
    "nic": netdev,
    "object": server_of_object,
    "parallel": device,
    "qmp": device,
    "qmp-pretty": device,
    "qtest": device,
    "serial": device,
    "vnc": vnc,
}
