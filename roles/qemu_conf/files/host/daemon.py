# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the daemon that reads qemu.conf: which process it is, and what a restart would cut off.

Prints JSON: `answers` and `error` (libvirt's words, or null); `busy`, the active domains that have
a job; `pid`, `identity` (process and start, alike only for one process) and `unit` (of systemd,
when that process is its main one), each null when not known; `older_than_file`. A daemon that hangs
ends this program by SIGALRM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import time
import typing as t

import libvirt

_ANSWER_SECONDS = 15
_PAUSE_SECONDS = 0.2
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
# Whoever listens on the socket of that name has the QEMU driver.
_UNITS = {"virtqemud-sock": "virtqemud.service", "libvirt-sock": "libvirtd.service"}
_INIT = 1

Report = t.Dict[str, t.Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("file")
    parser.add_argument("--wait-seconds", type=float, default=0)
    parser.add_argument("--restarting", action="store_true", help="wait until no domain has a job")
    parser.add_argument("--other-than", help="wait for a process that has not this identity")
    arguments = parser.parse_args()
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised, not printed too
    end = time.monotonic() + arguments.wait_seconds
    while True:
        # Its default action, as a Python handler would wait for libvirt's call to return.
        signal.alarm(_ANSWER_SECONDS)
        report = report_of(arguments.uri, arguments.file)
        signal.alarm(0)
        if arguments.other_than is None:
            waited_for = is_free(report, arguments.restarting)
        else:
            waited_for = is_new(report, arguments.other_than)
        if waited_for or time.monotonic() >= end:
            break
        time.sleep(_PAUSE_SECONDS)
    print(json.dumps(report))


def is_free(report: Report, restarting: bool) -> bool:
    """Whether nothing would be cut off by the restart, if there is to be one."""
    return not report["busy"] or not (restarting or report["older_than_file"])


def is_new(report: Report, old: str) -> bool:
    """Whether a process answers that is not the old one (empty: there was none) and can have read
    the file as it is."""
    if not report["answers"] or report["older_than_file"]:
        return False
    return not old or report["identity"] not in (None, old)


def report_of(uri: str, file: str) -> Report:
    """What the daemon says now, and what its process is."""
    report: Report = {
        "answers": False,
        "busy": [],
        "error": None,
        "identity": None,
        "older_than_file": False,
        "pid": None,
        "unit": None,
    }
    try:
        connection = libvirt.open(uri)
        domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        report["busy"] = sorted(domain.name() for domain in domains if _has_job(domain))
    except libvirt.libvirtError as exc:
        return {**report, "error": str(exc)}
    report["answers"] = True
    peer = peer_of(int(name) for name in os.listdir("/proc/self/fd"))
    if peer is not None:
        unit = _UNITS.get(os.path.basename(peer[1]))
        pid, unit = process_of(peer[0], unit, _main_pid(unit) if unit else 0)
        if pid:
            report.update(_process(pid, file), unit=unit)
    connection.close()
    return report


def process_of(listener: int, unit: str | None, main_pid: int) -> tuple[int, str | None]:
    """The daemon's process, 0 when not known, and the unit when it is the unit's main process.

    The kernel names who began to listen on the socket, which is systemd where a socket unit exists.
    """
    if listener == _INIT:
        return main_pid, unit if main_pid else None
    return listener, unit if main_pid == listener else None


def started_at(stat: str, ticks_per_second: int, since_boot: float, now: float) -> float:
    """When the process of this /proc/PID/stat started, in seconds since the epoch."""
    return now - (since_boot - _start_ticks(stat) / ticks_per_second)


def is_older(started: float, written: float, now: float) -> bool:
    """Whether a process that started then cannot have read what was written then. A time that is
    still to come was given by another clock, and says nothing."""
    return started < written <= now


def peer_of(descriptors: t.Iterable[int]) -> tuple[int, str] | None:
    """Who listens at the other end of the UNIX socket with a path among these, and that path."""
    for descriptor in descriptors:
        try:
            copy = os.dup(descriptor)
        except OSError:  # that of the listing itself
            continue
        try:
            connected = socket.socket(fileno=copy)
        except OSError:  # not a socket
            os.close(copy)
            continue
        with connected:
            path = _peer_path(connected)
            if path:
                size = struct.calcsize("3i")
                found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
                return struct.unpack("3i", found)[0], path
    return None


def _peer_path(connected: socket.socket) -> str:
    if connected.family != socket.AF_UNIX:
        return ""
    try:
        return os.fsdecode(connected.getpeername())
    except OSError:  # not connected
        return ""


def _process(pid: int, file: str) -> Report:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as source:
        stat = source.read()
    now = time.time()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    started = started_at(stat, os.sysconf("SC_CLK_TCK"), since_boot, now)
    try:
        older = is_older(started, os.stat(file).st_mtime, now)
    except FileNotFoundError:
        older = False
    return {"pid": pid, "identity": f"{pid}:{_start_ticks(stat)}", "older_than_file": older}


def _start_ticks(stat: str) -> int:
    return int(stat.rpartition(")")[2].split()[19])  # the name before it may hold anything


def _main_pid(unit: str) -> int:
    """0 when there is no systemd, no such unit, or none of its processes."""
    try:
        ran = subprocess.run(
            ["systemctl", "show", "--property=MainPID", "--value", unit],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return 0
    return int(ran.stdout) if ran.stdout.strip().isdigit() else 0


def _has_job(domain: libvirt.virDomain) -> bool:
    """Whether a save, dump or migration of it would be cut off by a restart of the daemon."""
    try:
        return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in _GONE:
            return False
        raise


if __name__ == "__main__":
    main()
