# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How soon a guest runs, and what it occupies then: its RAM mapped from the image, or read.

Beside it, virsh restores the same guest from an image of format sparse, over two channels. Half of
each guest's RAM is data. Every restore begins with none of the image in the page cache, and is
timed from the start of its process, the module's interpreter and imports included, to its end: then
the guest runs. *touched* is how long it takes from then on until every page was read once, in
order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import (
    replaceable,
)
from ansible_collections.vmfleet.suspend.plugins.modules import qemu_restore
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import (
    LibvirtHost,
    libvirt_missing,
)

MIB = 1 << 20
SMALLEST_MIB = 256
LARGEST_SHARE = 0.4  # of the memory that is available: the guest, and its image in the page cache
ROUNDS = 3
REGIONS: dict[str, Any] = {"pattern_mib": 32, "zero_mib": 16}


class Figures(NamedTuple):
    """Seconds until the guest ran, MiB resident then, seconds until all of it was touched."""

    running_seconds: float
    resident_mib: float
    touched_seconds: float


def sizes_mib():
    """Powers of two, as far as this machine goes."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        (line,) = [line for line in meminfo if line.startswith("MemAvailable:")]
    most = int(int(line.split()[1]) / 1024 * LARGEST_SHARE)
    return [SMALLEST_MIB << power for power in range(12) if SMALLEST_MIB << power <= most]


def evict(path):
    with path.open("rb") as image:
        os.fsync(image.fileno())
        os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ram_of(guest):
    """Process, address and length in bytes of the guest's main RAM: the mapping of that size."""
    pid, length = guest.pid, guest.memory_mib * MIB
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if end - start == length:
                return pid, start, length
    raise LookupError(f"process {pid} has no mapping of {length} bytes")


def fill(guest):
    """Half of the RAM becomes data that no page shares with another."""
    pid, address, length = ram_of(guest)
    begin = guest.regions.end_bytes
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for position in range(begin, begin + length // 2 - guest.regions.pattern_bytes, 4 * MIB):
            memory.seek(address + position)
            memory.write(os.urandom(4 * MIB))


def touch(guest):
    """Seconds until every page of the RAM was read once."""
    pid, address, length = ram_of(guest)
    buffer, began = bytearray(MIB), time.perf_counter()
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for position in range(0, length, MIB):
            os.preadv(memory, [buffer], address + position)
    finally:
        os.close(memory)
    return time.perf_counter() - began


def resident_mib(guest):
    with open(f"/proc/{guest.pid}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def timed_module(path, **options):
    """Seconds of the module's process, from its start to its end."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"path": str(path), **options}}
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, qemu_restore.__file__],
        input=json.dumps(arguments),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(qemu_restore.__file__).parents[5])},
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    assert json.loads(ran.stdout)["guest"]["state"] == "running", ran.stdout + ran.stderr
    return seconds


def restored(guest, path, load):
    """The round in which it ran first."""
    rounds = []
    for _round in range(ROUNDS):
        if guest.alive():
            do_save(guest.qmp_socket, path)
        evict(path)
        seconds = timed_module(path, load=load, prefetch="none")
        resident = resident_mib(guest)
        rounds.append(Figures(seconds, resident, touch(guest)))
    return min(rounds)


def restored_by_virsh(tmp_path, memory_mib):
    """The same of a domain, whose RAM is filled and read past libvirt as well."""
    path, host, rounds = tmp_path / "domain.save", LibvirtHost(), []
    guest = LibvirtTinyGuest(tmp_path, host, memory_mib=memory_mib, **REGIONS)
    try:
        host.start()
        guest.start()
        guest.wait_ready()
        fill(guest)
        channels = ("--parallel-channels", 2)
        for _round in range(ROUNDS):
            host.virsh("save", guest.name, path, "--image-format", "sparse", *channels)
            evict(path)
            began = time.perf_counter()
            host.virsh("restore", path, *channels)
            seconds = time.perf_counter() - began
            rounds.append(Figures(seconds, resident_mib(guest), touch(guest)))
        assert not guest.mismatches
    finally:
        guest.close()
        host.close()
        path.unlink(missing_ok=True)
    return min(rounds)


@pytest.mark.parametrize("memory_mib", sizes_mib())
def test_time_to_running(tmp_path, capsys, memory_mib):
    path, found = tmp_path / "image.save", {}
    guest = TinyGuest(tmp_path, memory_mib=memory_mib, **REGIONS)
    try:
        guest.start()
        guest.wait_ready()
        fill(guest)
        found["lazy"] = restored(guest, path, "lazy")
        found["eager"] = restored(guest, path, "eager")
        assert not guest.mismatches
    finally:
        guest.close()
        with replaceable(str(path)):
            path.unlink(missing_ok=True)
    missing = libvirt_missing()
    if missing is None:
        found["virsh"] = restored_by_virsh(tmp_path, memory_mib)
    with capsys.disabled():
        print(f"\n{memory_mib} MiB of RAM" + (f" (no virsh: {missing})" if missing else ""))
        for how, figures in found.items():
            print(
                f"  {how:5}  running after {figures.running_seconds:5.2f} s"
                f" ({figures.running_seconds / found['lazy'].running_seconds:4.1f}x lazy),"
                f" {figures.resident_mib:5.0f} MiB resident,"
                f" touched {figures.touched_seconds:5.2f} s later"
            )
