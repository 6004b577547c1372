# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's own log holds of a module that ran there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from .test_modules import run_module

# Where the module runs, /dev/log is the test's; else little is in /dev.
_PYTHON = """\
#!/bin/sh
exec unshare --mount sh -euc '
mount -t tmpfs tmpfs {dev}
for name in null random urandom zero; do
    touch {dev}/$name
    mount --bind /dev/$name {dev}/$name
done
ln -s {log} {dev}/log
mount --bind {dev} /dev
exec {python} "$@"' sh "$@"
"""


@pytest.fixture
def logged():
    """The Python of a host with a logger, and what that got."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a program a /dev of its own")
    directory = Path(tempfile.mkdtemp(prefix="vmflog"))  # a socket's path has room for 107 bytes
    dev, log, python = (directory / name for name in ("dev", "log", "python"))
    dev.mkdir()
    python.write_text(_PYTHON.format(dev=dev, log=log, python=sys.executable))
    python.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        logger.bind(str(log))
        logger.setblocking(False)

        def lines():
            """Ours: Ansible has lines of its own."""
            found = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(logger.recv(4096).decode())
            ours = (re.fullmatch(r"<30>vmfleet-suspend\[\d+\]: (.*)", one) for one in found)
            return [one[1] for one in ours if one]

        yield python, lines
    shutil.rmtree(directory)


def test_each_phase_is_in_the_hosts_log_with_guest_and_image(logged, ran, store):
    python, lines = logged
    guest, path = ran(name="web01"), store / "web01.save"
    place = {"qmp_socket": guest.qmp_socket, "path": path}
    assert run_module("qemu_save", "--check", python=python, **place)["changed"] is True
    assert lines() == []
    assert run_module("qemu_save", python=python, **place)["changed"] is True
    told = lines()
    assert {one.partition(": ")[0] for one in told} == {f"save web01 ({path})"}
    phases = [one.partition(": ")[2] for one in told]
    assert "writing the guest's state" in phases
    assert phases[-1] == "done"
