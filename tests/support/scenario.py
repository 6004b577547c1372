# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What molecule scenarios have guests on; a program, whose words are a verb and a DIRECTORY.

`up DIRECTORY HOST...` makes hosts that are reached over ssh, `up-with-libvirt DIRECTORY` a
libvirtd, each with three guests that have checked their own memory once. They last until `down
DIRECTORY`. `reboot DIRECTORY HOST` ends a host's processes and starts it again. `alive DIRECTORY`
prints the guests that are there, `check DIRECTORY` fails unless all run and find their memory as
it was.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.drive import goes_on
from ansible_collections.vmfleet.suspend.tests.support.fleet import Fleet
from ansible_collections.vmfleet.suspend.tests.support.guest import ONE_OF_A_FLEET, TinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.qemu_conf_host import QemuConfHost
from ansible_collections.vmfleet.suspend.tests.support.ssh_hosts import SshHost, SshHosts, why_not

_NAMES = ("web", "app", "db")
_UNTIL = "sleep infinity"
# Python in the libvirtd's namespaces, for Ansible outside of them.
_PYTHON_INSIDE = """#!/bin/sh
exec nsenter --target={holder} --mount --net -- {python} "$@"
"""


def _up(directory: Path, hosts: Sequence[str]) -> None:
    reason = why_not()
    assert reason is None, reason
    (directory / "ssh").mkdir(parents=True)
    made = SshHosts(directory / "ssh", hosts, until=_UNTIL)
    names = {host: [f"{name}{host[-1]}" for name in _NAMES] for host in hosts}
    fleet = Fleet(made, partial(TinyGuest, directory, **ONE_OF_A_FLEET), directory, names)
    _keep(directory, list(fleet.guests.values()))


def _up_with_libvirt(directory: Path) -> None:
    (directory / "store").mkdir(parents=True, mode=0o700)
    host = QemuConfHost()
    (directory / "libvirt").symlink_to(host.directory)
    host.start()
    holder = (host.directory / "holder.pid").read_text("ascii")
    host.program("host-python", _PYTHON_INSIDE, holder=holder, python=sys.executable)
    guests = [LibvirtTinyGuest(directory, host, name=name, **ONE_OF_A_FLEET) for name in _NAMES]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_passes(1)
    _keep(directory, guests)


def _keep(directory: Path, guests: Sequence[TinyGuest]) -> None:
    (directory / "guests").write_bytes(pickle.dumps(guests))


def _guests(directory: Path) -> list[TinyGuest]:
    kept: list[TinyGuest] = pickle.loads((directory / "guests").read_bytes())
    return kept


def _reboot(directory: Path, name: str) -> None:
    host = SshHost((directory / "ssh" / name).resolve())
    host.end()
    host.boot(_UNTIL)


def _alive(directory: Path) -> None:
    for guest in _guests(directory):
        if guest.alive():
            print(guest.name)


def _check(directory: Path) -> None:
    for guest in _guests(directory):
        assert goes_on(guest), f"{guest.name}: {guest.status()}, {guest.mismatches}"
        print(guest.name, guest.passes[-1])


def _down(directory: Path) -> None:
    """What is there, also of an `up` that was cut off."""
    if (directory / "guests").exists():
        for guest in _guests(directory):
            guest.close()
    for process in directory.glob("ssh/*/process"):
        SshHost(process.parent).end()
    if (directory / "libvirt").exists():
        QemuConfHost((directory / "libvirt").resolve()).close()
    if directory.exists():
        shutil.rmtree(directory)


def main() -> None:
    # Ansible may end the whole process group of a task's worker once the task is over.
    if os.getpid() != os.getpgrp():
        os.setsid()
    verb, directory, *words = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    verbs = {
        "up": lambda: _up(directory, words),
        "up-with-libvirt": lambda: _up_with_libvirt(directory),
        "reboot": lambda: _reboot(directory, words[0]),
        "alive": lambda: _alive(directory),
        "check": lambda: _check(directory),
        "down": lambda: _down(directory),
    }
    verbs[verb]()


if __name__ == "__main__":
    main()
