# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The kernel's tables of sockets, and the processes that hold them (proc(5): net/unix, net/tcp).

They show this network namespace only, and processes that the caller may look into.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import typing as t

_ACCEPTS = 0x10000  # __SO_ACCEPTCON
_DATAGRAM = 2
_LISTEN = "0A"
_EVERY_ADDRESS = ("0.0.0.0", "::")


def listening_sockets(where: str) -> set[int]:
    """Inodes of the UNIX sockets that await clients or datagrams at an absolute path, or at ``@``
    and a name in the abstract namespace."""
    return {inode for inode, name in _named_sockets() if _is_same_socket(inode, name, where)}


def _named_sockets() -> t.Iterator[tuple[int, str]]:
    for row in _rows("/proc/net/unix"):
        fields = row.split(None, 7)  # number, users, protocol, flags, type, state, inode, name
        if len(fields) == 8 and (int(fields[3], 16) & _ACCEPTS or int(fields[4], 16) == _DATAGRAM):
            yield int(fields[6]), fields[7]


def _is_same_socket(inode: int, name: str, where: str) -> bool:
    if where.startswith("@") or name.startswith("@"):
        return name.rstrip("@") == where
    if os.path.basename(name) != os.path.basename(where):
        return False
    # As it was bound: the name may be relative to where its process was started.
    homes = [""] if os.path.isabs(name) else [_link(f"/proc/{pid}/cwd") for pid in _pids(inode)]
    wanted = os.path.realpath(os.path.dirname(where))
    return any(
        os.path.realpath(os.path.dirname(os.path.join(home, name))) == wanted for home in homes
    )


def listening_ports(kind: int, addresses: t.Sequence[tuple[t.Any, ...]]) -> set[int]:
    """Inodes of the sockets that listen (TCP) or receive (UDP) at one of ``addresses`` as
    getaddrinfo gives them, or at every address of the host with the same port."""
    found = set()
    table = "tcp" if kind == socket.SOCK_STREAM else "udp"
    ports = {address[1] for address in addresses}
    hosts = {address[0] for address in addresses}
    for name in (table, f"{table}6"):
        for row in _rows(f"/proc/net/{name}"):
            fields = row.split()
            if table == "tcp" and fields[3] != _LISTEN:
                continue
            digits, _colon, port = fields[1].partition(":")
            host = _host(digits)
            near = host in hosts or host in _EVERY_ADDRESS or hosts & set(_EVERY_ADDRESS)
            if near and int(port, 16) in ports:
                found.add(int(fields[9]))
    return found


def _host(digits: str) -> str:
    # Words of 32 bits as this machine stores them.
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def owners_of(inodes: t.Iterable[int]) -> str:
    """The processes that hold sockets, in words: ``process 12 (qemu-system-x86)``."""
    pids = sorted({pid for inode in inodes for pid in _pids(inode)})
    names = [f"process {pid} ({_program(pid)})" for pid in pids]
    return " and ".join(names) or "a process that is not visible from here"


def _pids(inode: int) -> list[int]:
    wanted = f"socket:[{inode}]"
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _has(name, wanted)]


def _has(pid: str, link: str) -> bool:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        return any(_link(f"{directory}/{fd}") == link for fd in os.listdir(directory))
    return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return name.read().strip()
    except OSError:
        return "unknown"


def _rows(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as table:
            return [row for row in table.read().split("\n")[1:] if row]
    except OSError:
        return []
