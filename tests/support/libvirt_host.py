# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirtd of the test's own, beside which any other on the machine goes on undisturbed.

It runs in a mount namespace in which its directories are a test's, and in a network namespace that
has nothing but its loopback; from outside it is reached by its socket's own path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

_START_SECONDS = 20.0
_STOP_SECONDS = 20.0
_VIRSH_SECONDS = 600.0
_CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)
_RESTARTS_AT_MOST = 5  # systemd's own limit
SMALL_STORE_BYTES = 4 << 20
# Where a libvirtd keeps what it knows, each with the part of its own directory that stands there.
_PLACES = {
    "/etc/libvirt": "etc",
    "/run/libvirt": "run",
    "/var/cache/libvirt": "cache",
    "/var/lib/libvirt": "lib",
    "/var/log/libvirt": "log",
}
_DAEMON = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
"""
# QEMU as root, without help from systemd, AppArmor or virtlogd.
_QEMU = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""


def libvirt_missing() -> str | None:
    """Why there can be no libvirtd here; None when there can."""
    if os.geteuid() != 0:
        return "only root can give a libvirtd directories of its own"
    if shutil.which("libvirtd") is None or shutil.which("virsh") is None:
        return (
            "libvirtd and virsh are needed (Debian: libvirt-daemon, libvirt-daemon-driver-qemu and "
            "libvirt-clients from backports); tools/setup.sh libvirt installs them"
        )
    return None


class LibvirtHost:
    """One libvirtd with its domains, until `close`. One that crashes is started again, as systemd
    does on a host: to abort a compressed save can be the end of libvirt 11.3 (docs: domains)."""

    def __init__(
        self, *, also: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> None:
        # A socket's path has room for 107 bytes, which pytest's directories can exceed.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="vmflibvirt"))
        self._places = {**_PLACES, **(also or {})}
        self.uri = f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"
        # Mounted before its namespace is made, so that daemon and tests see the same.
        self.small_store = self.directory / "small"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._crash_is_played = False
        self._changing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """As another process sees it, which has no daemon to mind."""
        return {**self.__dict__, "_daemon": None, "_changing": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changing=threading.Lock())

    def start(self) -> Self:
        """Start it and wait until it answers. Raises AssertionError with its own words."""
        for place, own in self._places.items():
            (self.directory / own).mkdir()
            Path(place).mkdir(parents=True, exist_ok=True)
        self.small_store.mkdir()
        size = f"size={SMALL_STORE_BYTES},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.small_store], check=True)
        (self.directory / "etc" / "libvirtd.conf").write_text(_DAEMON, "utf-8")
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU, "utf-8")
        return self._run()

    def restart(self, *, fresh: bool) -> None:
        """End the daemon and start it again. ``fresh``: without what it knows of this boot, as
        after one of the host; no domain may run then."""
        self._end()
        if fresh:
            shutil.rmtree(self.directory / "run")
            (self.directory / "run").mkdir()
        self._run()

    @property
    def enter(self) -> str:
        """What runs a program where files and network are this daemon's own."""
        assert self._daemon is not None, "the daemon does not run"
        return f"nsenter --target={self._daemon.pid} --mount --net"

    def kill(self) -> None:
        """End the daemon at once; its domains go on."""
        assert self._daemon is not None, "the daemon does not run"
        self._daemon.kill()
        self._daemon.wait(_STOP_SECONDS)

    def crash(self) -> None:
        """What an access to memory that is not its own does to it."""
        assert self._daemon is not None, "the daemon does not run"
        self._crash_is_played = True
        self._daemon.send_signal(signal.SIGSEGV)
        self._daemon.wait(_STOP_SECONDS)

    def _run(self) -> Self:
        self._wait_for_answer(self._launch())
        return self

    def _launch(self) -> subprocess.Popen[bytes]:
        run = f"exec libvirtd --pid-file '{self.directory}/libvirtd.pid'"
        with (self.directory / "said").open("ab") as said:
            daemon = subprocess.Popen(
                self.inside(run),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self._daemon = daemon
        threading.Thread(target=self._mind, args=(daemon,), daemon=True).start()
        return daemon

    def _mind(self, daemon: subprocess.Popen[bytes]) -> None:
        ended = daemon.wait()
        with self._changing:
            if daemon is not self._daemon or not self._is_started_again(daemon):
                return
            self._restarts += 1
            self._launch()
        if not self._crash_is_played:
            warnings.warn(f"libvirtd ended with {ended} and was started again", stacklevel=1)
        self._crash_is_played = False

    def inside(self, command: str) -> list[str]:
        """The words that run this in namespaces of its own, its directories in their places."""
        binds = [f"mount --bind '{self.directory}/{own}' {at}" for at, own in self._places.items()]
        lines = [*binds, "ip link set lo up", command]
        return ["unshare", "--mount", "--net", "sh", "-ec", "\n".join(lines)]

    def _wait_for_answer(self, daemon: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.virsh("list")
                return
            except AssertionError as exc:
                words = (self.directory / "said").read_text("utf-8", "replace")
                assert daemon.poll() is None, f"libvirtd ended: {words}"
                assert time.monotonic() < end, f"libvirtd does not answer: {exc}; {words}"
                time.sleep(0.1)

    def virsh(self, *words: object) -> str:
        """What virsh prints. Raises AssertionError with what it says when it fails."""
        end = time.monotonic() + _START_SECONDS
        while True:
            ran = subprocess.run(
                ["virsh", "--quiet", "--connect", self.uri, *map(str, words)],
                capture_output=True,
                text=True,
                timeout=_VIRSH_SECONDS,
                check=False,
            )
            if "failed to connect" not in ran.stderr:
                break
            time.sleep(0.1)
            waits = self._restarts or (self._daemon and self._is_started_again(self._daemon))
            if not waits or time.monotonic() > end:
                break
        assert ran.returncode == 0, f"virsh {' '.join(map(str, words))}: {ran.stderr.strip()}"
        return ran.stdout

    def define(self, xml: str) -> None:
        """Make a domain known."""
        path = self.directory / "domain.xml"
        path.write_text(xml, "utf-8")
        self.virsh("define", path)

    def close(self) -> None:
        """End every domain, then the daemon, and remove its directories."""
        try:
            if self._runs():
                self._end_domains()
        finally:
            self._end()
        if self.small_store.is_mount():
            subprocess.run(["umount", self.small_store], check=True)
        shutil.rmtree(self.directory)

    def _end_domains(self) -> None:
        end = time.monotonic() + _STOP_SECONDS
        while names := self.virsh("list", "--name").split():
            assert time.monotonic() < end, f"these domains do not end: {names}"
            for name in names:
                with contextlib.suppress(AssertionError):  # it ended a moment ago
                    self.virsh("destroy", name)

    def _runs(self) -> bool:
        daemon = self._daemon
        return daemon is not None and (daemon.poll() is None or self._is_started_again(daemon))

    def _is_started_again(self, daemon: subprocess.Popen[bytes]) -> bool:
        return daemon.poll() in _CRASHES and self._restarts < _RESTARTS_AT_MOST

    def _end(self) -> None:
        with self._changing:
            daemon, self._daemon = self._daemon, None
        if daemon is not None and daemon.poll() is None:
            daemon.terminate()
            daemon.wait(_STOP_SECONDS)
