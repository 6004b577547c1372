# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole host: what each further guest costs, and eight guests beside libvirt-guests and dd.

Half of each guest's RAM is data. libvirt-guests.sh (ON_SHUTDOWN=suspend) saves and starts the same
domains one by one. What it wrote is flushed within its time, as ours is; dd copies as many bytes in
one go, flushed too. Everything is timed as whole processes, one after the other, in turns. RAM is
mapped from an image (lazy) without libvirt alone, so that this is measured with eight guests behind
monitors.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import (
    LibvirtHost,
    libvirt_missing,
)
from ansible_collections.vmfleet.suspend.tests.support.model_host import model_guests
from ansible_collections.vmfleet.suspend.tests.support.stricken import run_stricken

from .test_lazy import fill

EIGHT = 8
MEMORY_MIB = 256
ROUNDS = 3
FEW, MANY = 20, 120
LIBVIRT_GUESTS = "/usr/lib/libvirt/libvirt-guests.sh"
SETTINGS = """\
URIS='qemu:///system'
ON_BOOT=start
ON_SHUTDOWN=suspend
START_DELAY=0
SYNC_TIME=0
"""


def own_seconds(count):
    """Processor time of this process for a suspend of so many scripted guests."""
    directory = Path(tempfile.mkdtemp(prefix="vmfmodel"))
    try:
        with model_guests(directory / "guests", count) as sockets:
            host = Host(directory, qmp_sockets=[sockets])
            begun = time.process_time()
            host.suspend(max_concurrent=20)
            return time.process_time() - begun
    finally:
        shutil.rmtree(directory)


def test_what_each_further_guest_costs():
    own_seconds(1)  # imports
    few, many = (
        statistics.median([own_seconds(count) for _round in range(ROUNDS)]) for count in (FEW, MANY)
    )
    each = (many - few) / (MANY - FEW)
    print(
        f"\nqemu_host_suspend, scripted monitors: {few:.2f} s of own time for {FEW} guests, "
        f"{many:.2f} s for {MANY}: {each * 1000:.1f} ms for each further guest"
    )


@pytest.fixture
def libvirt():
    missing = libvirt_missing()
    if missing is not None:
        pytest.skip(missing)
    if not os.path.exists(LIBVIRT_GUESTS):
        pytest.skip(f"nothing to compare with: {LIBVIRT_GUESTS} comes with libvirt-daemon-common")
    host = LibvirtHost(also={"/run/lock": "lock"})
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture
def domains(libvirt, tmp_path):
    guests = [
        LibvirtTinyGuest(
            tmp_path, libvirt, memory_mib=MEMORY_MIB, pattern_mib=32, name=f"d{number}"
        )
        for number in range(EIGHT)
    ]
    for guest in guests:
        guest.start().wait_passes(1)
        fill(guest)
    yield guests
    for guest in guests:
        guest.close()


def libvirt_guests(libvirt, verb):
    """Seconds of the service's own script, where its files are the tests' daemon's."""
    settings = libvirt.directory / "libvirt-guests"
    settings.write_text(SETTINGS)
    script = f"mount --bind '{settings}' /etc/default/libvirt-guests; exec {LIBVIRT_GUESTS} {verb}"
    command = [*libvirt.enter.split(), "unshare", "--mount", "sh", "-ec", script]
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["sync", "-f", str(libvirt.directory)], check=True)
    return time.monotonic() - begun


def ours(verb, directory, **options):
    begun = time.monotonic()
    end = run_stricken(verb, {"directory": str(directory), **options}, None)
    assert end.error is None, end.error
    return time.monotonic() - begun, end.result


def copied(source_bytes, directory):
    target = directory / "copied"
    begun = time.monotonic()
    subprocess.run(
        [
            "dd",
            "if=/dev/zero",
            f"of={target}",
            "bs=1M",
            f"count={source_bytes >> 20}",
            "conv=fsync",
            "status=none",
        ],
        check=True,
    )
    seconds = time.monotonic() - begun
    target.unlink()
    return seconds


def test_eight_domains_beside_libvirt_guests_and_dd(domains, libvirt, tmp_path):
    host = Host(tmp_path, uri=libvirt.uri)
    rows: dict[str, list[float]] = {}

    def note(what, seconds):
        rows.setdefault(what, []).append(seconds)

    written, result = 0, {}
    for _round in range(ROUNDS):
        seconds, result = ours("suspend", tmp_path, uri=libvirt.uri, qemu_conf="/nonexistent")
        written = sum(guest["bytes"] for guest in result["guests"])
        note("ours suspend", seconds)
        note("ours resume", ours("resume", tmp_path)[0])
        for guest in domains:
            guest.wait_passes(1)
        for image in host.store.iterdir():
            image.unlink()
        note("libvirt-guests stop", libvirt_guests(libvirt, "stop"))
        assert libvirt.virsh("list", "--name").split() == []
        note("libvirt-guests start", libvirt_guests(libvirt, "start"))
        for guest in domains:
            guest.wait_passes(1)
        note("dd", copied(written, tmp_path))
    assert all(not guest.mismatches for guest in domains)
    median = {what: statistics.median(taken) for what, taken in rows.items()}
    print(
        f"\n{EIGHT} domains of {MEMORY_MIB} MiB, {written >> 20} MiB written, median of {ROUNDS}:"
    )
    for what, seconds in median.items():
        print(f"  {what:22} {seconds:7.2f} s")
    print(
        f"  libvirt-guests stop / ours suspend: "
        f"{median['libvirt-guests stop'] / median['ours suspend']:.2f}\n"
        f"  libvirt-guests start / ours resume: "
        f"{median['libvirt-guests start'] / median['ours resume']:.2f}\n"
        f"  ours suspend / dd: {median['ours suspend'] / median['dd']:.2f}, "
        f"libvirt-guests stop / dd: {median['libvirt-guests stop'] / median['dd']:.2f}"
    )
    print_foretold(result)


def print_foretold(result):
    """Each guest's predicted and actual seconds, of a run that had others to go by."""
    for guest in result["guests"]:
        foretold = guest["predicted_seconds"]
        print(
            f"  {guest['name']}: predicted {foretold if foretold is None else f'{foretold:.2f}'} s,"
            f" took {guest['actual_seconds']:.2f} s"
        )


@pytest.fixture
def guests(tmp_path):
    found = [TinyGuest(tmp_path, MEMORY_MIB, 32, 4, name=f"g{number}") for number in range(EIGHT)]
    for guest in found:
        guest.start()
        guest.wait_passes(1)
        fill(guest)
    yield found
    for guest in found:
        guest.close()


def test_eight_guests_eager_and_lazy(guests, tmp_path):
    host = Host(tmp_path)
    sockets = {"qmp_sockets": [guest.qmp_socket for guest in guests]}
    rows: dict[str, list[float]] = {}
    written, result = 0, {}
    for _round in range(ROUNDS):
        for load in ("eager", "lazy"):
            seconds, result = ours("suspend", tmp_path, qemu_conf="/nonexistent", **sockets)
            written = sum(guest["bytes"] for guest in result["guests"])
            rows.setdefault("ours suspend", []).append(seconds)
            seconds = ours("resume", tmp_path, load=load)[0]
            rows.setdefault(f"ours resume, {load}", []).append(seconds)
            for guest in guests:
                guest.wait_passes(1)
            for image in host.store.iterdir():
                # A guest whose RAM is mapped from its image keeps that from changing.
                subprocess.run(["chattr", "-i", image], check=False, capture_output=True)
                image.unlink()
        rows.setdefault("dd", []).append(copied(written, tmp_path))
    assert all(not guest.mismatches for guest in guests)
    median = {what: statistics.median(taken) for what, taken in rows.items()}
    print(f"\n{EIGHT} guests of {MEMORY_MIB} MiB, {written >> 20} MiB written, median of {ROUNDS}:")
    for what, seconds in median.items():
        print(f"  {what:22} {seconds:7.2f} s, {seconds / median['dd']:.2f} of dd")
    print_foretold(result)
