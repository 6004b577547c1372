# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether somebody listens at an address, found out without becoming a client of theirs.

A server such as virtiofsd or swtpm ends after its first client, and a QMP monitor has room for
one: nobody is connected to on this host. A datagram socket that is pointed at a stream socket's
path gets EPROTOTYPE where one is bound and ECONNREFUSED where only the file is left (unix(7));
ports and abstract names are tried by binding them for a moment, without listening.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import typing as t

from ._claims import PIDFILE, Claim, Peer
from ._endpoints import ANY, SOCKET, TCP
from ._socket_tables import listening_ports, listening_sockets, owners_of

_REMOTE_TIMEOUT_SECONDS = 1
_FLOCK = "hhqqi"  # struct flock of fcntl(2): type, whence, start, length, pid
_PADDED_BYTES = 108  # an abstract name with tight=off fills all of sun_path

_Address = t.Tuple[socket.AddressFamily, t.Tuple[t.Any, ...]]


def taken(claim: Claim) -> str | None:
    """Who has what ``claim`` needs, as the end of a sentence; None when it is free, or when that
    cannot be told."""
    if claim.kind == PIDFILE:
        return _holder_of_pidfile(claim.where)
    if claim.kind == SOCKET:
        if not _is_bound(claim.where):
            return None
        return f"{owners_of(listening_sockets(claim.where))} listens there"
    kind = socket.SOCK_STREAM if claim.kind == TCP else socket.SOCK_DGRAM
    addresses = _addresses(claim.where, kind, passive=True)
    if not any(_bind_error(kind, address) == errno.EADDRINUSE for address in addresses):
        return None
    inodes = listening_ports(kind, [address for _family, address in addresses])
    return f"{owners_of(inodes)} has that {claim.kind.upper()} port"


def silent(peer: Peer) -> str | None:
    """Why ``peer`` would not answer, as the end of a sentence; None when somebody listens, or when
    that cannot be told."""
    if peer.kind == SOCKET:
        return "nothing listens there" if _is_bound(peer.where) is False else None
    reason = "the name of its host cannot be resolved"
    for family, address in _addresses(peer.where, socket.SOCK_STREAM, passive=False):
        if _is_of_this_host(family, address):
            if listening_ports(socket.SOCK_STREAM, [address]):
                return None
            reason = "nothing listens there"
        else:
            refusal = _refusal(family, address)
            if refusal is None:
                return None
            reason = f"it does not answer ({refusal})"
    return reason


def _holder_of_pidfile(path: str) -> str | None:
    # QEMU holds a POSIX lock on it for as long as it lives (os-posix.c, qemu_write_pidfile).
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(fd)
    kind, pid = answer[0], answer[4]
    if kind == fcntl.F_UNLCK:
        return None
    return f"process {pid} holds its lock" if pid > 0 else "another process holds its lock"


def _is_bound(where: str) -> bool | None:
    """Whether a process has bound a UNIX socket there; None when that cannot be told."""
    if where.startswith("@"):
        name = os.fsencode("\0" + where[1:])
        return _is_name_bound(name) or _is_name_bound(name.ljust(_PADDED_BYTES, b"\0"))
    code = _probe_error(where)
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return False
    if code in (0, errno.EPROTOTYPE):
        return True
    return True if listening_sockets(where) else None


def _is_name_bound(name: bytes) -> bool:
    return _bind_error(socket.SOCK_STREAM, (socket.AF_UNIX, name)) == errno.EADDRINUSE


def _probe_error(path: str) -> int | None:
    """The error of pointing a datagram socket at ``path``, 0 for none, None for one without a
    number (a name that no socket can have)."""
    directory, name = os.path.split(path)
    try:
        # Through a descriptor, because sun_path is shorter than paths may be.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)
    except OSError as exc:
        return exc.errno
    return 0


def _addresses(where: str, kind: int, *, passive: bool) -> list[_Address]:
    host, _colon, port = where.rpartition(":")
    try:
        found = socket.getaddrinfo(
            None if host == ANY else host.strip("[]"),
            port,
            type=kind,
            flags=socket.AI_PASSIVE if passive else 0,
        )
    except (OSError, UnicodeError):
        return []
    return [(entry[0], entry[4]) for entry in found]


def _bind_error(kind: int, address: tuple[socket.AddressFamily, t.Any]) -> int | None:
    """The error of binding that address, None when it works."""
    family, where = address
    try:
        with socket.socket(family, kind) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:  # else what a guest's last connection left is in the way
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as exc:
        return exc.errno
    return None


def _is_of_this_host(family: socket.AddressFamily, address: tuple[t.Any, ...]) -> bool:
    return _bind_error(socket.SOCK_DGRAM, (family, (address[0], 0, *address[2:]))) is None


def _refusal(family: socket.AddressFamily, address: tuple[t.Any, ...]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_REMOTE_TIMEOUT_SECONDS)
            probe.connect(address)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None
