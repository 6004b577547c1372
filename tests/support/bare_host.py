# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for the role kvm_host: this machine's system, of which some directories are a test's to
change, the rest of its root filesystem can only be read, and which has no network, not even a
loopback. Other filesystems (/dev, /dev/shm, /proc, /tmp) are the machine's own.

As a program it makes the host of a molecule scenario (`up DIRECTORY`), which lasts until `down
DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

_CHANGEABLE = ("/etc", "/opt", "/usr/libexec", "/usr/local", "/var/cache", "/var/lib", "/var/log")
_PLAY_SECONDS = 120.0
# The distribution's own.
PYTHON = "/usr/bin/python3"
_PACKAGE = "qemu.qmp>=0.0.3,<0.1"
# Python in the host, for Ansible outside of it.
_PYTHON_INSIDE = """#!/bin/sh
exec nsenter --target={holder} --mount --net -- {python} "$@"
"""


def fetch_wheel(place: Path) -> Path:
    """qemu.qmp as a controller has it for hosts without network; fetched once."""
    if not list(place.glob("qemu*.whl")):
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*fetch, str(place), _PACKAGE], check=True)
    return max(place.glob("qemu*.whl"))


class BareHost:
    """One host, until `close`. ``directory``: what was changed lies there; it has to be on a
    filesystem that overlays can stand on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Ansible makes a socket in it, whose path has room for 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="vmfbare"))
        self._holder: subprocess.Popen[str] | None = None

    def start(self, until: str = "cat") -> Self:
        """Make it; it lasts as long as the program ``until``."""
        mounts = [f"mount --bind '{place}' '{place}'" for place in ("/tmp", self.directory)]
        # Of this namespace alone. What a test writes elsewhere, through a link say, is refused.
        mounts += ["mount -o remount,bind,ro /", f"mount -t tmpfs tmpfs '{self.directory}/layers'"]
        for number, place in enumerate(_CHANGEABLE):
            upper, work = (f"{self.directory}/layers/{number}/{kind}" for kind in ("up", "work"))
            mounts.append(f"mkdir -p '{upper}' '{work}'")
            layers = f"lowerdir={place},upperdir={upper},workdir={work}"
            mounts.append(f"mount -t overlay overlay -o '{layers}' {place}")
        (self.directory / "layers").mkdir(parents=True)
        made = "\n".join([*mounts, "echo up", f"exec {until}"])
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-ec", made],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n", "the host could not be made"
        return self

    @property
    def pid(self) -> int:
        """Of the process that holds it."""
        assert self._holder is not None, "the host is not there"
        return self._holder.pid

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--"]

    def run(self, *argv: object, check: bool = True) -> str:
        """What a program in the host prints."""
        ran = subprocess.run(
            [*self._enter, *map(str, argv)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0 or not check, f"{argv}: {ran.stderr}"
        return ran.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in the host, in place of a link too."""
        script = 'mkdir -p "$(dirname "$1")"; rm -f "$1"; printf %s "$2" >"$1"; chmod "$3" "$1"'
        self.run("sh", "-ec", script, "sh", path, text, f"{mode:o}")

    def play(
        self, tasks: list[dict[str, Any]], *flags: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a play of ``tasks`` in it."""
        play = {"hosts": "bare", "gather_facts": False, "tasks": tasks}
        return self.playbook([play], *flags, **variables)

    def playbook(
        self, plays: list[dict[str, Any]], *flags: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run them in it; ``hosts`` is `bare` or `kvm_hosts`."""
        path = self.directory / "play.yml"
        path.write_text(json.dumps(plays))
        inventory = self.directory / "hosts.json"
        known = {
            "ansible_connection": "local",
            "ansible_become": False,  # who is root already needs no sudo
            "ansible_python_interpreter": PYTHON,
            "vmfleet_progress": False,
        }
        inventory.write_text(json.dumps({"kvm_hosts": {"hosts": {"bare": known}}}))
        run = ["ansible-playbook", "-i", str(inventory), "-e", json.dumps(variables)]
        return subprocess.run(
            [*self._enter, *run, *flags, str(path)],
            # What pip is told on this machine is not for the host.
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("PIP_")},
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOME": f"{self.directory}/ansible",
                "ANSIBLE_REMOTE_TMP": f"{self.directory}/remote",
                "TMPDIR": str(self.temporary),
            },
            capture_output=True,
            text=True,
            timeout=_PLAY_SECONDS,
            check=False,
        )

    def close(self) -> None:
        """End it; what was changed is gone with it."""
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.communicate(timeout=20)
        shutil.rmtree(self.temporary)


def main() -> None:
    verb, directory = sys.argv[1], Path(sys.argv[2])
    if directory.exists():  # of an earlier run that was cut off, or ours
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((directory / "holder").read_text())
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0infinity\0":
                os.kill(pid, signal.SIGTERM)
        shutil.rmtree(directory)
    if verb == "up":
        host = BareHost(directory).start(until="sleep infinity")
        host.temporary.rmdir()
        (directory / "holder").write_text(str(host.pid))
        python = directory / "python"
        python.write_text(_PYTHON_INSIDE.format(holder=host.pid, python=PYTHON))
        python.chmod(0o755)
        fetch_wheel(directory / "wheels")


if __name__ == "__main__":
    main()
