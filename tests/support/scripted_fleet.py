# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of scripted guests: hosts that are all this machine, reached by local connections."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
import venv
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.model_host import model_guests

# What each of the hosts' Python processes says of itself as it ends: its processor time, and
# whether it is Ansible's background job, which nobody waits for.
_TELL = """\
import atexit, os, resource, sys

def tell(background):
    used = resource.getrusage(resource.RUSAGE_SELF)
    used_by_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime + used_by_children.ru_utime + used_by_children.ru_stime
    with open({log!r}, "a") as log:
        log.write(f"{{int(background)}} {{seconds}}\\n")

with open(f"/proc/{{os.getppid()}}/cmdline") as parent:
    atexit.register(tell, "async_wrapper" in parent.read())
"""


@dataclass(frozen=True)
class Play:
    """One run of a playbook. Seconds: how long it took; of processor time, what ansible-playbook
    and its workers used, and what the hosts' modules did."""

    printed: str
    ended_well: bool
    wall_seconds: float
    controller_seconds: float
    module_seconds: float


class ScriptedFleet:
    """Hosts and where they keep what is theirs. ``guests_per_host`` is what they were made with."""

    def __init__(self, directory: Path, hosts: int, guests_per_host: int) -> None:
        self.directory = directory
        self.hosts = tuple(f"kvm{number:03}" for number in range(hosts))
        self.guests_per_host = guests_per_host
        self.inventory = directory / "inventory.json"
        self._usage = directory / "usage"
        self._interpreter = _interpreter(directory / "venv", self._usage)
        for number in range(hosts):
            (directory / f"{number}-store").mkdir(mode=0o700)
        self.write_inventory(self.hosts)

    def write_inventory(self, hosts: t.Sequence[str], **more: object) -> None:
        """Only these hosts, as one slice of a job has them; ``more`` variables of each."""
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(self._interpreter),
            "vm_suspend_qmp_sockets": [f"{self.directory}/guests/{{{{ number }}}}/*/qmp"],
            "vm_suspend_store": f"{self.directory}/{{{{ number }}}}-store",
            "vm_suspend_journal": f"{self.directory}/{{{{ number }}}}-journal",
            "vm_suspend_qemu_conf": "/nonexistent/qemu.conf",
            "vm_resume_store": "{{ vm_suspend_store }}",
            "vm_resume_journal": "{{ vm_suspend_journal }}",
            **more,
        }
        numbers = {host: {"number": self.hosts.index(host)} for host in hosts}
        inventory = {"kvm_hosts": {"hosts": numbers, "vars": variables}}
        self.inventory.write_text(json.dumps(inventory))

    def play(self, playbook: str, *words: str, **knobs: object) -> Play:
        """Run it to its end."""
        self._usage.write_text("")
        before, begun = _children_seconds(), time.monotonic()
        run = subprocess.run(
            [
                Path(sys.executable).parent / "ansible-playbook",
                f"--inventory={self.inventory}",
                f"--extra-vars={json.dumps(knobs)}",
                *words,
                f"vmfleet.suspend.{playbook}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.directory,
            env=self.environment(),
        )
        wall, in_all = time.monotonic() - begun, _children_seconds() - before
        told = [line.split() for line in self._usage.read_text().splitlines()]
        waited_for = sum(float(seconds) for background, seconds in told if background == "0")
        return Play(
            printed=run.stdout,
            ended_well=run.returncode == 0,
            wall_seconds=wall,
            controller_seconds=in_all - waited_for,
            module_seconds=sum(float(seconds) for _background, seconds in told),
        )

    def environment(self) -> dict[str, str]:
        """Of everything that runs playbooks on it."""
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(self.directory / "ansible"),
        }


@contextlib.contextmanager
def scripted_fleet(hosts: int, guests_per_host: int) -> t.Iterator[ScriptedFleet]:
    """While this lasts. Its paths are short: a socket's has room for 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="vmfleet"))
    try:
        with model_guests(directory / "guests", guests_per_host, hosts):
            yield ScriptedFleet(directory, hosts, guests_per_host)
    finally:
        shutil.rmtree(directory)


def _interpreter(directory: Path, usage: Path) -> Path:
    """This Python with all that it has, and told to say what its processes use."""
    venv.create(directory)
    (packages,) = directory.glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "own.pth").write_text("\n".join(own) + "\n")
    (packages / "vmfleet_tell_usage.py").write_text(_TELL.format(log=str(usage)))
    (packages / "tell.pth").write_text("import vmfleet_tell_usage\n")
    return directory / "bin" / "python"


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
