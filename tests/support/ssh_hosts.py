# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that Ansible reaches over ssh, on this machine: each has processes, mounts, a name and a
network of its own, and an sshd.

A host's network has nothing but its loopback, and no route. ssh's ProxyCommand enters it, so that
whatever goes wrong reaches this machine's loopback at most. A host sees this machine's files; /run
and root's home are its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

SSHD = "/usr/sbin/sshd"
PROGRAMS = (SSHD, "ip", "nc", "nsenter", "ssh", "ssh-keygen", "unshare")
_END_SECONDS = 20.0
# Process 1 of a host. A shell that waits for its last command reaps whatever else has ended.
_INIT = """
echo "$2" >/proc/sys/kernel/hostname
for own in passwd shadow; do mount --bind "$1/$own" /etc/$own; done
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
ip link set lo up
"$3" -D -f "$1/sshd_config" -E "$1/log" &
until [ -e /run/sshd.pid ]; do kill -0 $!; sleep 0.02; done
echo up
"""
_SSHD_CONFIG = """\
ListenAddress {address}
HostKey {host}/host.key
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
UsePAM no
Subsystem sftp internal-sftp
"""
# nc sees that nobody is there any more when it is given something to send: every second.
_SSH_CONFIG = """\
User root
IdentityFile {key}
ServerAliveInterval 1
ServerAliveCountMax 60
ControlMaster auto
ControlPersist 60
"""
_SSH_CONFIG_HOST = """\
Host {name}
    HostName {address}
    UserKnownHostsFile {host}/known
    ControlPath {socket}
    ProxyCommand nsenter --net={host}/process/ns/net nc %h %p
"""


def why_not() -> str | None:
    """Why there can be no such hosts here; None when there can."""
    if os.geteuid() != 0:
        return "hosts that are reached over ssh need root; `make test` as root runs this"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)}: not found; `tools/setup.sh libvirt` installs what is missing"
    return None


class SshHost:
    """One host. Its files lie in ``directory``, whose name is its own; they stay."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._outside: subprocess.Popen[str] | None = None

    def furnish(self, address: str, public_key: str) -> None:
        """Write what it needs to be reached at ``address`` by who has the key."""
        home = self.directory / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        home.chmod(0o700)
        (home / ".ssh" / "authorized_keys").write_text(public_key)
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        for user in users:
            if user[0] == "root":
                user[5], user[6] = str(home), "/bin/sh"
        self._write("passwd", "".join(":".join(user) + "\n" for user in users))
        # Without a password, but not locked, as root may be on this machine.
        self._write("shadow", "root:*:20000:0:99999:7:::\n")
        self._write("sshd_config", _SSHD_CONFIG.format(host=self.directory, address=address))
        _make_key(self.directory / "host.key")
        host_key = (self.directory / "host.key.pub").read_text()
        self._write("known", f"{address} {host_key}")

    def boot(self, until: str) -> None:
        """Start it; it lasts as long as the program ``until``, at most until `end`."""
        self._write("boot_id", f"{uuid.uuid4()}\n")
        with (self.directory / "log").open("ab") as log:
            self._outside = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child"),
                    *("--mount-proc", "sh", "-euc", f"{_INIT}{until}\n:"),
                    *("init", str(self.directory), self.directory.name, SSHD),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._outside.stdout is not None
        said = self._outside.stdout.readline()
        assert said == "up\n", (self.directory / "log").read_text()
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children")
        self._process.unlink(missing_ok=True)
        self._process.symlink_to(f"/proc/{children.read_text().strip()}")

    def inside(self, words: Sequence[object]) -> list[str]:
        """The command that runs this one in it."""
        entered = ["nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--uts", "--"]
        return [*entered, *(str(word) for word in words)]

    def end(self) -> None:
        """End every process of it at once, as a power failure does; another process may have
        started it."""
        if self._is_up():
            os.kill(self._pid, signal.SIGKILL)
            end = time.monotonic() + _END_SECONDS
            while self._process.exists():  # for as long as any of its processes
                assert time.monotonic() < end, f"{self.directory.name} does not end"
                time.sleep(0.01)
        if self._outside is not None:
            self._outside.communicate()

    @property
    def _process(self) -> Path:
        """A link to its process 1, as seen from outside."""
        return self.directory / "process"

    @property
    def _pid(self) -> int:
        return int(self._process.readlink().name)

    def _is_up(self) -> bool:
        try:
            words = (self._process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return str(self.directory).encode() in words  # and is not another with its number

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)


class SshHosts:
    """``names``: of at most 200 hosts; ``inventory``: the file that names them.

    They last as long as the program ``until``, at most until `close`; what runs in them ends with
    them. To ssh with the option -F ssh_config, their names are known.
    """

    def __init__(self, directory: Path, names: Sequence[str], until: str = "cat") -> None:
        self.inventory = directory / "inventory.ini"
        self._hosts = {name: SshHost(directory / name) for name in names}
        self._until = until
        key = directory / "id"
        _make_key(key)
        config = _SSH_CONFIG.format(key=key)
        for number, (name, host) in enumerate(self._hosts.items(), start=1):
            # Addresses differ, for ssh keeps connections apart by them.
            address = f"127.0.0.{number}"
            host.furnish(address, Path(f"{key}.pub").read_text())
            host.boot(until)
            # A socket's path has room for 107 bytes, which a checkout's can exceed.
            socket = Path(tempfile.gettempdir()) / f"vmfssh{uuid.uuid4().hex}"
            config += _SSH_CONFIG_HOST.format(
                name=name, address=address, host=host.directory, socket=socket
            )
        (directory / "ssh_config").write_text(config)
        lines = [
            *names,
            "[all:vars]",
            f"ansible_ssh_args=-F {directory}/ssh_config",
            f"ansible_python_interpreter={sys.executable}",
        ]
        self.inventory.write_text("\n".join(lines) + "\n")

    def inside(self, name: str, words: Sequence[object]) -> list[str]:
        """The command that runs this one in a host."""
        return self._hosts[name].inside(words)

    def end(self, name: str) -> None:
        """End every process of a host at once."""
        self._hosts[name].end()

    def boot(self, name: str) -> None:
        """Start a host that has ended."""
        self._hosts[name].boot(self._until)

    def reboot(self, name: str) -> None:
        """End a host and start it again."""
        self.end(name)
        self.boot(name)

    def close(self) -> None:
        """End the hosts."""
        for host in self._hosts.values():
            host.end()


def _make_key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, capture_output=True
    )
