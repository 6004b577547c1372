# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Where a QEMU listens and whom it calls, read from the value of one option.

The notations differ by option (QEMU 10.0: chardev/char.c, net/slirp.c, net/socket.c,
net/stream.c, net/dgram.c, ui/vnc.c, ui/spice-core.c). A port that QEMU chooses itself, from a
range (``to=``) or from all (0), is none that it needs.
"""

from __future__ import annotations

import os
import re
import typing as t

from ._command_line import TRUE_WORDS
from ._pairs import pairs_of

Keys = t.Mapping[str, str]

SOCKET, TCP, UDP = "socket", "tcp", "udp"
ANY = "*"  # every address of the host, of both families
_ANY_IPV4 = "0.0.0.0"

_VNC_PORT, _VNC_WEBSOCKET_PORT = 5900, 5700
_GUESTFWD_SERVER = re.compile(r"(?:tcp)?:[^:]*:[^-]*-(?!cmd:)(.*)", re.DOTALL)
_HOSTFWD = re.compile(r"(tcp|udp)?:([^:]*):(\d+)-")
_MULTICAST = re.compile(r"(22[4-9]|23\d)\.")


class Endpoint(t.NamedTuple):
    """``kind``: socket (UNIX), tcp or udp. ``where``: an absolute path, ``@`` and a name in the
    abstract namespace, or ``host:port``. ``serves``: QEMU binds it, else it connects to it."""

    kind: str
    where: str
    serves: bool


def chardev(keys: Keys, cwd: str) -> t.Iterator[Endpoint]:
    """Of a character device, whose ``backend`` is among ``keys``."""
    if keys.get("backend") == "socket":
        yield from _socket(keys, cwd)
    elif keys.get("backend") == "udp":
        local = {**keys, "host": keys.get("localaddr", ""), "port": keys.get("localport", "")}
        yield from _inet(UDP, local, True)


def device(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of a character device in the short notation of -serial and its kin: ``tcp:host:port,...``."""
    text = text[len("mon:") :] if text.startswith("mon:") else text
    scheme, _colon, rest = text.partition(":")
    if scheme == "unix":
        yield from _socket(dict(pairs_of(rest, "path")), cwd)
    elif scheme in ("tcp", "telnet", "tn3270", "websocket"):
        address, _comma, options = rest.partition(",")
        yield from _socket({**_host_port(address), **dict(pairs_of(options))}, cwd)
    elif scheme == "udp":
        local = rest.partition("@")[2].partition(",")[0]
        yield from _inet(UDP, _host_port(local), True)


def gdb(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of -gdb, which makes a server of every ``tcp:`` (QEMU gdbstub/system.c)."""
    return device(f"{text},server=on" if text.startswith("tcp:") else text, cwd)


def vnc(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of a VNC display: the number after the colon counts from 5900, a websocket's does not."""
    pairs = pairs_of(text, "vnc")
    keys = dict(pairs)
    serves = not _is_on(keys, "reverse")
    displays = [value for key, value in pairs if key == "vnc" and value != "none"]
    for display in displays:
        yield from _vnc_address(display, _VNC_PORT if serves else 0, keys, cwd, serves)
    host, _colon, number = displays[0].rpartition(":") if displays else ("", "", "")
    for key, address in pairs:
        if key != "websocket" or not displays or address == "off":
            continue
        if address in ("", "on"):
            yield from _vnc_address(f":{number}", _VNC_WEBSOCKET_PORT, keys, cwd, True, host)
        else:
            full = address if ":" in address else f":{address}"
            yield from _vnc_address(full, 0, keys, cwd, True, host)


def _vnc_address(
    address: str, offset: int, keys: Keys, cwd: str, serves: bool, default_host: str = ""
) -> t.Iterator[Endpoint]:
    if address.startswith("unix:"):
        yield _unix(address[len("unix:") :], cwd, serves)
        return
    host, _colon, number = address.rpartition(":")
    if number.isdigit():
        port = str(int(number) + offset)
        yield from _inet(TCP, {**keys, "host": host or default_host, "port": port}, serves)


def spice(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of all -spice together, joined by commas: QEMU merges them."""
    keys = dict(pairs_of(text))
    if _is_on(keys, "unix"):
        if keys.get("addr"):
            yield _unix(keys["addr"], cwd, True)
        return
    for port in ("port", "tls-port"):
        yield from _inet(
            TCP, {**keys, "host": keys.get("addr", ""), "port": keys.get(port, "")}, True
        )


def netdev(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of -netdev, -nic or -net."""
    pairs = pairs_of(text, "type")
    keys = dict(pairs)
    kind = keys.get("type")
    if kind == "user":
        for key, value in pairs:
            if key in ("hostfwd", "hostfwd.str"):
                yield from _forwarded(value)
            elif key in ("guestfwd", "guestfwd.str"):
                server = _GUESTFWD_SERVER.match(value)
                yield from device(server.group(1), cwd) if server else ()
    elif kind == "socket":
        yield from _socket_netdev(keys)
    elif kind == "stream":
        yield from _socket({**keys, **_below(keys, "addr")}, cwd)
    elif kind == "dgram":
        yield from _datagrams(_below(keys, "local"), _below(keys, "remote"), cwd)
    elif kind == "l2tpv3" and _is_on(keys, "udp"):
        source = {"host": keys.get("src", ""), "port": keys.get("srcport", "")}
        yield from _inet(UDP, source, True)


def _forwarded(rule: str) -> t.Iterator[Endpoint]:
    found = _HOSTFWD.match(rule)
    if found:
        host = found.group(2) or _ANY_IPV4
        yield from _inet(found.group(1) or TCP, {"host": host, "port": found.group(3)}, True)


def _socket_netdev(keys: Keys) -> t.Iterator[Endpoint]:
    # With mcast= several QEMUs share an address on purpose.
    for key, kind, serves in (("listen", TCP, True), ("connect", TCP, False)):
        if key in keys:
            yield from _inet(kind, _host_port(keys[key], _ANY_IPV4), serves)
    if "udp" in keys:
        yield from _inet(UDP, _host_port(keys.get("localaddr", ""), _ANY_IPV4), True)


def _datagrams(local: Keys, remote: Keys, cwd: str) -> t.Iterator[Endpoint]:
    if _MULTICAST.match(remote.get("host", "")):
        return
    if local.get("type") == "unix":
        yield _unix(local.get("path", ""), cwd, True)
    elif local.get("type") == "inet":
        yield from _inet(UDP, {**local, "host": local.get("host") or _ANY_IPV4}, True)


def server_of_object(text: str, cwd: str) -> t.Iterator[Endpoint]:
    """Of -object: helpers that QEMU connects to as it starts."""
    keys = dict(pairs_of(text, "qom-type"))
    if keys.get("qom-type") == "pr-manager-helper" and keys.get("path"):
        yield _unix(keys["path"], cwd, False)
    elif keys.get("qom-type") == "input-barrier":
        host, port = keys.get("server", "localhost"), keys.get("port", "24800")
        yield from _inet(TCP, {"host": host, "port": port}, False)


def _socket(keys: Keys, cwd: str) -> t.Iterator[Endpoint]:
    serves = _is_on(keys, "server")
    if any(keys.get(key, "0") != "0" for key in ("reconnect", "reconnect-ms")):
        return  # it tries until the server is there
    if "path" in keys:
        yield _unix(keys["path"], cwd, serves, abstract=_is_on(keys, "abstract"))
    elif "host" in keys:
        yield from _inet(TCP, keys, serves)


def _unix(path: str, cwd: str, serves: bool, abstract: bool = False) -> Endpoint:
    where = f"@{path}" if abstract else os.path.join(cwd, path)
    return Endpoint(SOCKET, where, serves)


def _inet(kind: str, keys: Keys, serves: bool) -> t.Iterator[Endpoint]:
    host, port = keys.get("host", "").strip("[]"), keys.get("port", "")
    if port in ("", "0") or keys.get("to", "0") != "0":
        return
    if not host:
        only_ipv4 = _is_off(keys, "ipv6") or (_is_on(keys, "ipv4") and not _is_on(keys, "ipv6"))
        only_ipv6 = _is_off(keys, "ipv4") or (_is_on(keys, "ipv6") and not _is_on(keys, "ipv4"))
        host = _ANY_IPV4 if only_ipv4 else "::" if only_ipv6 else ANY
    yield Endpoint(kind, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", serves)


def _host_port(text: str, default_host: str = "") -> dict[str, str]:
    host, _colon, port = text.rpartition(":")
    return {"host": host or default_host, "port": port}


def _below(keys: Keys, name: str) -> dict[str, str]:
    start = f"{name}."
    return {key[len(start) :]: value for key, value in keys.items() if key.startswith(start)}


def _is_on(keys: Keys, key: str) -> bool:
    return keys.get(key) in TRUE_WORDS


def _is_off(keys: Keys, key: str) -> bool:
    return key in keys and keys[key] not in TRUE_WORDS
