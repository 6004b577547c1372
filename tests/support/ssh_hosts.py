# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that Ansible reaches over ssh, on this machine and without a network.

A host is a mount namespace in which root's home is the host's own; ssh's ProxyCommand enters it and
serves the connection by a dropbear. As a program this file is that command: its words are a process
of the host and the host's key.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = ("dropbear", "dropbearkey", "nsenter", "ssh", "ssh-keygen", "unshare")
_HOLD = """
mount --bind "$1/passwd" /etc/passwd
touch "$1/ready"
exec sleep infinity
"""


def why_not() -> str | None:
    """Why there can be no such hosts here; None when there can."""
    if os.geteuid() != 0:
        return "hosts that are reached over ssh need root; `make test` as root runs this"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)}: not found; `tools/setup.sh libvirt` installs what is missing"
    return None


class SshHosts:
    """``names``: of at most 200 hosts; ``inventory``: the file that names them. `close` ends them,
    but not what runs in them."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self.inventory = directory / "inventory.ini"
        key = directory / "id"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        lines = []
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        for number, name in enumerate(names, start=1):
            self._make(directory / name, Path(f"{key}.pub").read_text())
            self._holders[name] = self._hold(directory / name)
            # Addresses differ, for ssh keeps connections apart by them; nobody listens there.
            lines.append(
                f"{name} ansible_host=127.0.0.{number} ansible_ssh_common_args='"
                f"-o UserKnownHostsFile={directory}/known -o StrictHostKeyChecking=no "
                f"-o ControlPath={directory}/{number}.ssh "
                f'-o ProxyCommand="{sys.executable} {__file__} {self._holders[name].pid} '
                f"{directory}/{name}/host.key\"'"
            )
        lines += [
            "[all:vars]",
            "ansible_user=root",
            f"ansible_ssh_private_key_file={key}",
            "ansible_ssh_transfer_method=piped",
            f"ansible_python_interpreter={sys.executable}",
        ]
        self.inventory.write_text("\n".join(lines) + "\n")

    def inside(self, name: str, words: Sequence[object]) -> list[str]:
        """The command that runs this one in a host."""
        entered = ["nsenter", f"--target={self._holders[name].pid}", "--mount", "--"]
        return [*entered, *(str(word) for word in words)]

    def close(self) -> None:
        """End the hosts."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _hold(self, host: Path) -> subprocess.Popen[bytes]:
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-euc", _HOLD, "hold", str(host)]
        )
        while not (host / "ready").exists():
            assert holder.poll() is None, "a host could not be made"
            time.sleep(0.01)
        return holder

    def _make(self, host: Path, public_key: str) -> None:
        (host / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        host.chmod(0o700)
        (host / "home").chmod(0o700)
        authorized = host / "home" / ".ssh" / "authorized_keys"
        authorized.write_text(public_key)
        authorized.chmod(0o600)
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        for user in users:
            if user[0] == "root":
                user[5], user[6] = str(host / "home"), "/bin/sh"
        (host / "passwd").write_text("".join(":".join(user) + "\n" for user in users))
        _run("dropbearkey", "-t", "ed25519", "-f", host / "host.key")


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def serve(pid: str, host_key: str) -> None:
    """One connection into the host of this process, from standard input to standard output."""
    ours, theirs = socket.socketpair()  # dropbear serves nothing but sockets
    subprocess.Popen(
        ["nsenter", f"--target={pid}", "--mount", "dropbear", "-i", "-s", "-r", host_key],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
    )
    theirs.close()
    with selectors.DefaultSelector() as ready:
        ready.register(0, selectors.EVENT_READ)
        ready.register(ours, selectors.EVENT_READ)
        while True:
            for key, _events in ready.select():
                if key.fileobj is ours:
                    data = ours.recv(1 << 16)
                    if not data:
                        return
                    while data:
                        data = data[os.write(1, data) :]
                else:
                    data = os.read(0, 1 << 16)
                    if not data:
                        return
                    ours.sendall(data)


if __name__ == "__main__":
    serve(*sys.argv[1:])
