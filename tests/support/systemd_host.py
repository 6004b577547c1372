# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real systemd, the first process of namespaces of its own, for tests on any host that has root.

It sees this host's files, all read-only but for the directories it is given, knows only the units
that the test writes, and cannot reach a process or a control group of the host's.
"""

from __future__ import annotations

import asyncio
import codecs
import ctypes
import os
import pickle
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

_Result = TypeVar("_Result")

SYSTEMD = "/lib/systemd/systemd"
_UNSHARED = ("--mount", "--uts", "--pid", "--ipc", "--propagation=private")
_ENTERED = ("--mount", "--uts", "--pid", "--ipc", "--cgroup")
_START_SECONDS = 30.0
_NAMESPACES = ("cgroup", "uts", "ipc", "pid", "mnt")  # mnt last: the others are found in /proc
# A control group of its own first: the namespace then begins there. $1: a directory to mount on,
# $2: the control group, $3: the units, $4: what stands at /etc/systemd/system, $5...: what stays
# writable.
_BOOT = """
set -eu
mount -t cgroup2 cgroup2 "$1"
mkdir "$1$2"
echo 0 >"$1$2/cgroup.procs"
umount "$1"
exec unshare --cgroup sh -euc '
    units=$3
    mount --bind "$4" /etc/systemd/system
    shift 4
    for directory; do mount --bind "$directory" "$directory"; done
    mount -o remount,bind,ro /
    mount -t proc proc /proc
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/systemd/system
    hostname vmfleet-test
    mkdir /run/none
    exec env container=vmfleet SYSTEMD_UNIT_PATH="/etc/systemd/system:/run/systemd/system:$units" \\
        SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \\
        SYSTEMD --system --log-target=console --show-status=no
' boot "$@"
""".replace("SYSTEMD ", f"{SYSTEMD} ")
_REMOVE = """
mount -t cgroup2 cgroup2 "$1"
[ ! -d "$1$2" ] || find "$1$2" -depth -type d -exec rmdir {} +
"""
_TARGET = "[Unit]\nDefaultDependencies=no\n"


def why_not() -> str | None:
    """Why there can be no `SystemdHost` here; None when there can."""
    if os.geteuid() != 0:
        return "a systemd in namespaces of its own needs root; `make test` as root runs this"
    if not os.path.exists(SYSTEMD) or shutil.which("systemctl") is None:
        return f"no systemd is installed on this host (there is no {SYSTEMD})"
    if "cgroup2" not in Path("/proc/filesystems").read_text():
        return "this kernel has no control groups v2"
    return None


class SystemdHost:
    """``writable``: directories that its units may write into; ``directory``: an empty one for the
    units and systemd's log. `close` ends everything in it."""

    def __init__(self, directory: Path, writable: Sequence[Path]) -> None:
        self.units = directory / "units"
        self.units.mkdir()
        self._etc = directory / "etc"
        self._etc.mkdir()
        self.log_path = directory / "log"
        self._mount_point = directory / "mount"
        self._mount_point.mkdir()
        own = Path("/proc/self/cgroup").read_text().partition("0::")[2].splitlines()[0]
        self._control_group = f"{own.rstrip('/')}/vmfleet-test-{os.getpid()}"
        self._writable = (directory, *writable)
        self._process: subprocess.Popen[bytes] | None = None
        self.write_unit("default.target", _TARGET)

    def write_unit(self, name: str, text: str) -> None:
        """A unit's file, or a drop-in file when ``name`` has a directory. A systemd that runs
        already sees it after `systemctl daemon-reload`."""
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def start(self) -> Self:
        """Start systemd and wait until it has nothing left to do."""
        places = (self._mount_point, self._control_group, self.units, self._etc, *self._writable)
        words = map(str, places)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "unshare",
                    *_UNSHARED,
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-c",
                    _BOOT,
                    "boot",
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(self._is_systemd, "start")
        self._wait(lambda: self.systemctl("is-system-running", check=False) == "running", "boot")
        return self

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What `systemctl` prints in there."""
        done = subprocess.run(
            ["nsenter", f"--target={self._pid()}", *_ENTERED, "systemctl", "--no-pager", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, (done.stderr, self._log())
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", "--", unit)

    def run(
        self, work: Callable[..., Coroutine[Any, Any, _Result]], *arguments: Any, user_id: int = 0
    ) -> _Result:
        """Run a coroutine function of this project, or of a test, in there."""
        # Forked, not begun anew: it has what was imported, whatever it may read in there.
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _enter(self._pid(), user_id)
                # Only a child is in the process namespace that was entered, and in its /proc.
                if os.fork() == 0:
                    with open(writing, "wb") as pipe:
                        pickle.dump(_run(work, arguments), pipe)
                else:
                    os.wait()
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        done, result = pickle.loads(said)
        if not done:
            raise result
        return cast(_Result, result)

    def pid_inside(self, pid: int) -> int:
        """What a process that this host knows as ``pid`` is called in there."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise LookupError(f"process {pid} has no NSpid")

    def close(self) -> None:
        """End systemd and all that it runs."""
        if self._process is not None:
            self._process.kill()  # and the kernel its child, and with that all in its namespace
            self._process.wait()
            self._wait(self._remove_control_group, "end")

    def _remove_control_group(self) -> bool:
        command = ["unshare", "--mount", "sh", "-euc", _REMOVE, "remove"]
        words = [str(self._mount_point), self._control_group]
        return (
            subprocess.run([*command, *words], check=False, stderr=subprocess.DEVNULL).returncode
            == 0
        )

    def _pid(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(children.read_text())

    def _is_systemd(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log()
        try:
            return os.readlink(f"/proc/{self._pid()}/exe") == os.path.realpath(SYSTEMD)
        except (OSError, ValueError):
            return False

    def _wait(self, condition: Callable[[], bool], doing: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"systemd did not {doing}: {self._log()}"
            time.sleep(0.05)

    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:]


def _enter(pid: int, user_id: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for fd in [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in _NAMESPACES]:
        if libc.setns(fd, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.close(fd)
    os.chdir("/")
    if user_id:
        codecs.lookup("ascii")  # Python's own files may lie where that user cannot read
        os.setgid(user_id)
        os.setgroups([])
        os.setuid(user_id)


def _run(
    work: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]
) -> tuple[bool, Any]:
    try:
        return True, asyncio.run(work(*arguments))
    except Exception as exc:
        exc.add_note(traceback.format_exc())
        return False, exc
