# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many model guests in a process of their own, so that what is spent on them is told apart.

    python -m ...tests.support.model_host DIRECTORY COUNT HOSTS

makes COUNT of them for each host, each with its monitor at DIRECTORY/HOST/NUMBER/qmp, says so, and
lasts until its input ends. Hosts and guests are numbered from 0.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import subprocess
import sys
import typing as t
import uuid
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.model_guest import model_guest, write_stream


@contextlib.contextmanager
def model_guests(directory: Path, count: int, hosts: int = 1) -> t.Iterator[str]:
    """While this lasts; gives the glob of their monitors, on all hosts."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(directory), str(count), str(hosts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "ready\n"
        yield f"{directory}/*/*/qmp"
        server.stdin.close()


def serve(directory: Path, count: int, hosts: int) -> None:
    """Make them, and wait."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as guests:
        for host, number in itertools.product(range(hosts), range(count)):
            place = directory / str(host) / str(number)
            place.mkdir(parents=True)
            name = f"m{host}-{number}"
            guests.enter_context(
                model_guest(place, name=name, uuid=str(uuid.uuid4()), writer=write_stream)
            )
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
