# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of hosts with real guests, and the fleet's playbooks run on it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import typing as t
from pathlib import Path

from .drive import goes_on
from .guest import TinyGuest
from .ssh_hosts import SshHosts

# A variable of ssh that makes a host unreachable.
AWAY = "-o ProxyCommand=false -o ControlPath=none"


class Play:
    """What one run of ansible-playbook printed. ``changed``: hosts with changes, by name;
    ``failed``: hosts that failed."""

    def __init__(self, text: str) -> None:
        self.text = text
        recap = text[text.rfind("PLAY RECAP") :]
        self.changed = dict(re.findall(r"(?m)^(\S+) +:.* changed=([1-9]\d*)", recap))
        self.failed = sorted(re.findall(r"(?m)^(\S+) +:.* failed=[1-9]", recap))


class Fleet:
    """``names``: of guests, by host. What a host keeps lies in ``directory``/HOST: sockets, store,
    journal; `place` says so in a variable's words. ``programs``: where ansible-playbook is."""

    def __init__(
        self,
        hosts: SshHosts,
        make_guest: t.Callable[..., TinyGuest],
        directory: Path,
        names: t.Mapping[str, t.Sequence[str]],
    ) -> None:
        self.directory = directory
        self.programs = Path(sys.executable).parent
        self.place = f"{directory}/{{{{ inventory_hostname }}}}"
        self.guests: dict[str, TinyGuest] = {}
        for host, guests in names.items():
            (directory / host / "qmp").mkdir(parents=True)
            (directory / host / "store").mkdir(mode=0o700)
            for name in guests:
                guest = make_guest(name=name)
                guest.run(hosts.inside(host, guest.argv()))
                (directory / host / "qmp" / name).symlink_to(guest.qmp_socket)
                self.guests[name] = guest
        for guest in self.guests.values():
            guest.wait_passes(1)
        self.inventory = directory / "inventory.ini"
        places = {
            "vm_suspend_qmp_sockets": f"['{self.place}/qmp/*']",
            "vm_suspend_store": f"{self.place}/store",
            "vm_suspend_journal": f"{self.place}/journal",
            "vm_resume_store": "{{ vm_suspend_store }}",
            "vm_resume_journal": "{{ vm_suspend_journal }}",
        }
        self.inventory.write_text(
            hosts.inventory.read_text()
            + "".join(f"{name}={value}\n" for name, value in places.items())
            + "\n".join(["[kvm_hosts]", *names, ""])
        )

    def begin(
        self, playbook: str, *words: str, inside: t.Sequence[str] = (), **knobs: object
    ) -> subprocess.Popen[str]:
        """ansible-playbook, under way. ``playbook``: one of the collection's, or a file;
        ``inside``: the words of a shell, before its last."""
        command = [
            str(self.programs / "ansible-playbook"),
            f"--inventory={self.inventory}",
            f"--extra-vars={json.dumps(knobs)}",
            *words,
            playbook if "/" in playbook else f"vmfleet.suspend.{playbook}",
        ]
        if inside:
            command = [*inside[:-1], f"{inside[-1]} && exec {shlex.join(command)}"]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_HOME": str(self.directory / "ansible"),
                "TZ": "America/New_York",
            },
            start_new_session=True,
        )

    def play(self, playbook: str, *words: str, fails: bool = False, **knobs: t.Any) -> Play:
        """One run to its end, which ``fails`` or does not."""
        run = self.begin(playbook, *words, **knobs)
        printed, _none = run.communicate(timeout=240)
        assert (run.returncode != 0) is fails, printed
        return Play(printed)

    def playbook(self, plays: t.Sequence[t.Mapping[str, t.Any]]) -> Play:
        """One run of these plays, as root, who needs no sudo."""
        path = self.directory / "plays.yml"
        path.write_text(json.dumps(plays))
        return self.play(str(path), ansible_become=False)

    def tasks(self, tasks: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        """The operator's, as tasks.yml where the playbooks are called."""
        (self.directory / "tasks.yml").write_text(json.dumps(tasks))

    def marks(self) -> list[str]:
        """Which of the files 1 and 2 there are, as HOST/NUMBER."""
        return sorted(
            f"{path.parent.name}/{path.name}" for path in self.directory.glob("kvm*/[12]")
        )

    def images(self) -> list[str]:
        """Names of the guests that have one."""
        return sorted(path.name.split("-")[0] for path in self.directory.glob("*/store/*.save"))

    def alive(self) -> list[str]:
        """Names of the guests whose monitor answers."""
        return sorted(name for name, guest in self.guests.items() if guest.alive())

    def all_go_on(self) -> None:
        """Every guest has checked its own memory since."""
        assert all(goes_on(guest) for guest in self.guests.values())

    def holds(self) -> dict[str, str]:
        """Until when hosts do not resume at boot, of those that are held."""
        found = {}
        for path in self.directory.glob("*/journal/*.json"):
            journal = json.loads(path.read_text())
            if journal["hold_until"] and not journal["released"] and not journal["closed"]:
                found[path.parent.parent.name] = journal["hold_until"]
        return found

    def reports(self) -> list[t.Any]:
        """In the order in which they were written."""
        paths = sorted(
            self.directory.glob("vmfleet-report/*.json"), key=lambda path: path.stat().st_mtime
        )
        return [json.loads(path.read_text()) for path in paths]

    def turns(self, way: str) -> dict[str, float]:
        """When each guest's turn came in the newest report: suspend or resume, by its name."""
        hosts = self.reports()[-1]["hosts"]
        return {
            guest["name"]: guest[way]["began_seconds"] for host in hosts for guest in host["guests"]
        }
