# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many model guests in a process of their own, so that what is spent on them is told apart.

    python -m ...tests.support.model_host DIRECTORY COUNT

makes COUNT of them, each with its monitor at DIRECTORY/NUMBER/qmp, says so, and lasts until its
input ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
import uuid
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.model_guest import model_guest, write_stream


@contextlib.contextmanager
def model_guests(directory: Path, count: int) -> t.Iterator[str]:
    """While this lasts; gives the glob of their monitors."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(directory), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "ready\n"
        yield f"{directory}/*/qmp"
        server.stdin.close()


def serve(directory: Path, count: int) -> None:
    """Make them, and wait."""
    with contextlib.ExitStack() as guests:
        for number in range(count):
            place = directory / str(number)
            place.mkdir(parents=True)
            guests.enter_context(
                model_guest(place, name=f"m{number}", uuid=str(uuid.uuid4()), writer=write_stream)
            )
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
