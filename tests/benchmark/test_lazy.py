# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How soon a guest runs, and what it occupies then: its RAM mapped from the image, or read.

Half of each guest's RAM is data. Every restore begins with none of the image in the page cache,
and is timed from the start of the module's process, interpreter and imports included, to its end:
then the guest runs. *touched* is how long it takes from then on until every page was read once, in
order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import lift
from ansible_collections.vmfleet.suspend.plugins.modules import qemu_restore
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, look
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

MIB = 1 << 20
SMALLEST_MIB = 256
LARGEST_SHARE = 0.4  # of the memory that is available: the guest, and its image in the page cache
ROUNDS = 3


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
    """Process, address and length in bytes of the guest's main RAM."""
    seen = look(guest.qmp_socket)
    assert seen.process is not None
    (ram,) = [block for block in seen.ram_blocks if block.name == "pc.ram"]
    return seen.process.pid, ram.host_address, ram.total_bytes


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
    """Seconds to running, MiB resident then, seconds until all was touched: the best round."""
    rounds = []
    for _round in range(ROUNDS):
        if guest.alive():
            do_save(guest.qmp_socket, path)
        evict(path)
        seconds = timed_module(path, load=load, prefetch="none")
        resident = resident_mib(guest)
        rounds.append((seconds, resident, touch(guest)))
    return min(rounds)


@pytest.mark.parametrize("memory_mib", sizes_mib())
def test_time_to_running(tmp_path, capsys, memory_mib):
    path = tmp_path / "image.save"
    guest = TinyGuest(tmp_path, memory_mib=memory_mib, pattern_mib=32, zero_mib=16)
    try:
        guest.start()
        guest.wait_ready()
        fill(guest)
        lazy = restored(guest, path, "lazy")
        eager = restored(guest, path, "eager")
        assert not guest.mismatches
    finally:
        guest.close()
        if path.exists():
            with path.open("rb") as image:
                lift(image.fileno(), str(path))
            path.unlink()
    with capsys.disabled():
        print(
            f"\n{memory_mib:6} MiB: running after {lazy[0]:.2f} s lazy, {eager[0]:.2f} s eager "
            f"({eager[0] / lazy[0]:.1f}x); resident {lazy[1]:.0f} MiB, {eager[1]:.0f} MiB; "
            f"touched {lazy[2]:.2f} s later, {eager[2]:.2f} s later"
        )
