# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for the role qemu_conf: a libvirtd of the tests' own, its qemu.conf, Augeas' lenses.

What runs "in the host" runs in its namespaces, which outlive its daemon. As a program it
makes the host of a molecule scenario (`up LINK`), which lasts until `down LINK`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost

LENSES = "/usr/share/augeas/lenses"
# The distribution's, which sees its libvirt binding.
PYTHON = "/usr/bin/python3"
PASSWORD = "horseman"
_START_SECONDS = 20.0
_PLAY_SECONDS = 300.0
ADMIN = f"""\
# The administrator's own lines.
vnc_password = "{PASSWORD}"
save_image_format = "raw"
user = "root"
group = "root"
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
remember_owner = 0
stdio_handler = "file"
"""
# A compressor that takes its time: a save in this format is a job until `go` exists.
_LZOP = """#!/bin/sh
while [ ! -e '{directory}/go' ]; do sleep 0.1; done
exec cat
"""
_RESTART = """#!/bin/sh
pid=$(cat '{directory}/libvirtd.pid' 2>/dev/null || :)
if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
fi
exec libvirtd -d --pid-file '{directory}/libvirtd.pid'
"""
# Does not start a daemon that would read our block.
_RESTART_BADLY = """#!/bin/sh
if grep -q 'MANAGED BLOCK' /etc/libvirt/qemu.conf; then
    kill "$(cat '{directory}/libvirtd.pid')"
else
    exec libvirtd -d --pid-file '{directory}/libvirtd.pid'
fi
"""
_RESTART_NEVER_ENDS = """#!/bin/sh
touch '{directory}/restarting'
exec sleep 300
"""
# Python in the host, for Ansible outside of it.
_ENTER = """#!/bin/sh
exec nsenter --target={holder} --mount --net -- {python} "$@"
"""
_RESTART_ACTIVATED = """#!/bin/sh
old=$(cat '{directory}/libvirtd.pid')
kill -HUP 1
while [ "$(cat '{directory}/libvirtd.pid' 2>/dev/null || :)" = "$old" ]; do sleep 0.1; done
"""
# As much of systemd as the role touches.
_SYSTEMCTL = """#!/bin/sh
case "$*" in
"show --property=MainPID --value {unit}") cat '{directory}/libvirtd.pid' ;;
show*--value*) echo 0 ;;
"show {unit}"*) printf 'LoadState=loaded\\nActiveState=active\\n' ;;
"restart {unit}"*) touch '{directory}/restarted-by-systemd'; exec '{restart}' ;;
*) exit 1 ;;
esac
"""
# Init of a host where systemd listens for the daemon: listens itself, hands the socket to a
# libvirtd that it starts, and starts another on SIGHUP.
_INIT = """\
import os, signal, socket, sys
directory, name = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/libvirt/" + name)
listener.listen()
daemon = 0

def start(*_):
    global daemon
    if daemon:
        os.kill(daemon, signal.SIGTERM)
        os.waitpid(daemon, 0)
    daemon = os.fork()
    if not daemon:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)  # it may be the same
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        os.environ["LISTEN_FDNAMES"] = "libvirtd.socket"
        os.execvp("libvirtd", ["libvirtd", "--pid-file", directory + "/libvirtd.pid"])

signal.signal(signal.SIGHUP, start)
start()
open(directory + "/listening", "w").close()
while True:
    signal.pause()
"""
_DOMAIN = """\
<domain type='qemu'>
  <name>tiny</name>
  <memory unit='MiB'>16</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


def ended(pid: int) -> bool:
    """Whether the process is gone, or only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class QemuConfHost(LibvirtHost):
    """Started by `start`; ended by `close`. With a directory it is the host that another process
    made there, maybe before a reboot."""

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(also={LENSES: "lenses"}, directory=directory)
        self.conf = self.directory / "etc" / "qemu.conf"
        self.lens = self.directory / "lenses" / "libvirtd_qemu.aug"
        self._init = 0
        self._holder = 0
        with contextlib.suppress(FileNotFoundError):
            holder = int((self.directory / "holder.pid").read_text("ascii"))
            self._holder = holder if self._has(holder) else 0

    def _has(self, pid: int) -> bool:
        """Whether this process is in the host, and not another with a number that was free."""
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text("utf-8")
        except OSError:  # it is gone
            return False
        return f"/{self.directory.name}/etc /etc/libvirt " in mounts

    def _run(self) -> Self:
        for own in ("bin", "tmp"):
            (self.directory / own).mkdir()
        shutil.copytree(LENSES, self.directory / "lenses", dirs_exist_ok=True, symlinks=True)
        self.restore_conf()
        self.restart_program = self.program("restart", _RESTART)
        self.restart_badly = self.program("restart-badly", _RESTART_BADLY)
        self.restart_never_ends = self.program("restart-never-ends", _RESTART_NEVER_ENDS)
        self.program("lzop", _LZOP)
        hold = f"touch '{self.directory}/ready'; exec sleep infinity"
        holder = subprocess.Popen(
            self.inside(hold),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._holder = holder.pid
        (self.directory / "holder.pid").write_text(str(holder.pid), "ascii")
        self._wait_for(self.directory / "ready")
        self.python = self.program("python", _ENTER, holder=holder.pid, python=PYTHON)
        self.start_daemon()
        return self

    def _wait_for(self, path: Path) -> None:
        end = time.monotonic() + _START_SECONDS
        while not path.exists():
            assert time.monotonic() < end, f"there is no {path}"
            time.sleep(0.05)

    def program(self, name: str, text: str, **words: object) -> str:
        """A program that comes first in the host's PATH."""
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text.format(directory=self.directory, **words), "utf-8")
        path.chmod(0o755)
        return str(path)

    def restore_conf(self, text: str = ADMIN) -> None:
        """The file as the package and the administrator left it, before the daemon was started."""
        self.conf.write_text(text, "utf-8")
        self.conf.chmod(0o600)
        os.utime(self.conf, (0, 0))
        for backup in self.backups():
            backup.unlink()

    def backups(self) -> list[Path]:
        """Copies that the role kept."""
        return sorted(self.conf.parent.glob("qemu.conf.*~"))

    def leftovers(self) -> list[Path]:
        """What the role left beside the file and in the directory for temporary files."""
        return [
            path
            for path in (*self.conf.parent.glob(".*"), *(self.directory / "tmp").iterdir())
            if path.name != "ansible-remote"
        ]

    def daemon_pid(self) -> int:
        """The daemon that should run now."""
        return int((self.directory / "libvirtd.pid").read_text("ascii"))

    def answers(self) -> bool:
        """Whether there is a daemon that answers."""
        ask = ("timeout", _START_SECONDS, "virsh", "-c", "qemu:///system", "list")
        return self.run(*ask, check=False).returncode == 0

    def _entered(self, words: tuple[object, ...]) -> list[str]:
        into = [f"--target={self._init or self._holder}", "--mount", "--net"]
        return ["nsenter", *into, *(["--pid"] if self._init else []), "--", *map(str, words)]

    def _environment(self, path: str) -> dict[str, str]:
        search = f"{path}:{self.directory}/bin:/usr/sbin:{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": search.lstrip(":"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "ansible-local"),
            "ANSIBLE_REMOTE_TMP": str(self.directory / "tmp" / "ansible-remote"),
            "TMPDIR": str(self.directory / "tmp"),
        }

    def run(
        self, *words: object, path: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A program in the host."""
        ran = subprocess.run(
            self._entered(words),
            env=self._environment(path),
            capture_output=True,
            text=True,
            timeout=_PLAY_SECONDS,
            check=False,
        )
        assert not check or ran.returncode == 0, ran.stdout + ran.stderr
        return ran

    def begin(self, *words: object) -> subprocess.Popen[bytes]:
        """A program in the host that goes on."""
        return subprocess.Popen(
            self._entered(words),
            env=self._environment(""),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start_daemon(self) -> None:
        """Start libvirtd and wait for it."""
        self.run("libvirtd", "-d", "--pid-file", self.directory / "libvirtd.pid")
        self._wait_for_answer_in_host()

    def _wait_for_answer_in_host(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self.answers():
            assert time.monotonic() < end, "libvirtd does not answer"
            time.sleep(0.1)

    def end_daemon(self) -> None:
        """End it, and wait until it is gone."""
        pid = self.daemon_pid()
        if not self._has(pid):
            return
        os.kill(pid, signal.SIGTERM)
        while not ended(pid):
            time.sleep(0.05)

    def virsh(self, *words: object) -> str:
        """What virsh prints in the host."""
        return self.run("virsh", "--quiet", "-c", "qemu:///system", *words).stdout

    def start_domain(self) -> None:
        """A running domain, `tiny`."""
        (self.directory / "tiny.xml").write_text(_DOMAIN, "utf-8")
        self.virsh("create", self.directory / "tiny.xml")

    def command(self, variables: dict[str, Any], *words: str) -> list[str]:
        """The ansible-playbook that applies the role."""
        play = [
            {
                "hosts": "all",
                "connection": "local",
                "gather_facts": False,
                "vars": {
                    "ansible_python_interpreter": PYTHON,
                    "qemu_conf_restart_command": [self.restart_program],
                    "qemu_conf_job_wait_seconds": 1,
                    "qemu_conf_start_wait_seconds": 5,
                    **variables,
                },
                "roles": ["vmfleet.suspend.qemu_conf"],
            }
        ]
        playbook = self.directory / "play.json"
        playbook.write_text(json.dumps(play), "utf-8")
        return ["ansible-playbook", "-i", "host,", *words, str(playbook)]

    def play(
        self, variables: dict[str, Any], *words: str, path: str = "", fails: bool = False
    ) -> str:
        """What ansible-playbook prints when it applies the role."""
        ran = self.run(*self.command(variables, *words), path=path, check=False)
        printed = ran.stdout + ran.stderr
        assert (ran.returncode != 0) == fails, printed
        return printed

    def systemctl(self, unit: str, restart: str) -> str:
        """A systemd in which this unit is the daemon; gives the directory of its systemctl."""
        (self.directory / "restarted-by-systemd").unlink(missing_ok=True)
        name = f"systemd-{unit}/systemctl"
        return str(Path(self.program(name, _SYSTEMCTL, unit=unit, restart=restart)).parent)

    @contextlib.contextmanager
    def socket_activation(self, socket_name: str, unit: str) -> Iterator[str]:
        """The daemon gets its socket from process 1 (of a PID namespace), as from systemd; gives
        the directory of systemctl. What runs in the host runs in that namespace."""
        self.end_daemon()
        restart = self.program("restart-activated", _RESTART_ACTIVATED)
        listening = self.directory / "listening"
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        outer = self.begin(*unshare, PYTHON, "-c", _INIT, self.directory, socket_name)
        try:
            self._wait_for(listening)
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text("ascii")
            self._init = int(children)
            self._wait_for_answer_in_host()
            yield self.systemctl(unit, restart)
        finally:
            self._init = 0
            outer.kill()
            outer.wait()
            listening.unlink(missing_ok=True)
            (self.directory / "run" / socket_name).unlink(missing_ok=True)
            self.start_daemon()

    def _runs(self) -> bool:
        if not self._holder:
            return False
        if not self.answers():
            self.restore_conf()
            with contextlib.suppress(AssertionError):
                self.start_daemon()
        return self.answers()

    def _end(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            self.end_daemon()
        if self._holder:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._holder, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):  # another process made it
                os.waitpid(self._holder, 0)


def main() -> None:
    verb, link = sys.argv[1], Path(sys.argv[2])
    if link.is_symlink():  # of an earlier run that was cut off, or ours
        if link.exists():
            QemuConfHost(link.resolve()).close()
        link.unlink()
    if verb == "up":
        host = QemuConfHost()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(host.directory)
        host.start()


if __name__ == "__main__":
    main()
