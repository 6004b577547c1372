# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""One run at a time for each QEMU, whichever of its monitors the runs came through.

Two runs would set capabilities and direct-io under each other's fdsets, which ends the guest
(spec/libvirt.md T1). The lock is a listening socket in the abstract namespace, named after the
process: any user can take it, nothing lies in a filesystem, and it vanishes with its holder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import typing as t

from .._errors import Busy
from ._process import ProcessIdentity


class GuestLocked(Busy):
    """Another run is working on this guest."""


def _address(process: ProcessIdentity | None, qmp_socket: str) -> bytes:
    who = os.path.realpath(qmp_socket)
    if process is not None:
        who = f"{process.pid}-{process.start_ticks}"
    return b"\0vmfleet-suspend/" + os.fsencode(who)[-80:]


def _holder(address: bytes) -> int | None:
    size = struct.calcsize("3i")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        except OSError:
            return None
    return int(struct.unpack("3i", peer)[0]) or None


def _locked(holder: int | None, qmp_socket: str) -> GuestLocked:
    return GuestLocked(
        f"Another run{f' (pid {holder})' if holder else ''} is saving or restoring the guest on "
        f"{qmp_socket}. Wait for it to end.",
        holder_pid=holder,
    )


def refuse_locked(process: ProcessIdentity | None, qmp_socket: str) -> None:
    """Raise `GuestLocked` when another run of ours is at work on this QEMU."""
    holder = _holder(_address(process, qmp_socket))
    if holder not in (None, os.getpid()):
        raise _locked(holder, qmp_socket)


@contextlib.contextmanager
def guest_lock(process: ProcessIdentity | None, qmp_socket: str) -> t.Iterator[None]:
    """Hold the lock of one QEMU. Raises `GuestLocked` naming the holder's pid."""
    address = _address(process, qmp_socket)
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            raise _locked(_holder(address), qmp_socket) from None
        lock.listen(1)
        yield
