# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save or a restore in a process of its own, in which something dies at a named step.

The code under test knows nothing of it: the step is a function, and the function is wrapped here.

    python -m ...tests.support.stricken '{"verb": "save", "options": {...}, "blow": {...}}'

prints what the module would return, or the error's message and facts, as one JSON object.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save

_MODULE_UTILS = "ansible_collections.vmfleet.suspend.plugins.module_utils."
_SECONDS = 60

# Who dies.
TOOL = "the tool"
QEMU = "QEMU"
MONITOR = "the monitor's connection"
FSYNC = "fsync"  # the call fails with EIO from then on


@dataclass(frozen=True)
class Blow:
    """``step``: dotted path of a function in module_utils, the ``nth`` call of which is struck,
    ``before`` it or after it. ``command``: only calls with this first argument count.
    ``victim``: one of the above, or the name of a program among the tool's children; ``pid`` of
    QEMU where that is the victim."""

    step: str
    before: bool = False
    nth: int = 1
    command: str | None = None
    victim: str = TOOL
    pid: int = 0


@dataclass(frozen=True)
class End:
    """How the run ended. ``killed``: by the blow; else ``result`` is what the module would return,
    or ``error`` the message and ``facts`` of its failure."""

    killed: bool
    result: dict[str, t.Any] | None = None
    error: str | None = None
    facts: dict[str, t.Any] | None = None


def run_stricken(verb: str, options: dict[str, t.Any], blow: Blow | None) -> End:
    """Run ``verb`` (save or restore) in a new process, struck by ``blow``."""
    order = {"verb": verb, "options": options, "blow": asdict(blow) if blow else None}
    python_path = os.pathsep.join(path for path in sys.path if path)
    finished = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        env=dict(os.environ, PYTHONPATH=python_path),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if finished.returncode == -signal.SIGKILL:
        return End(killed=True)
    assert finished.returncode == 0, finished.stderr
    return End(killed=False, **json.loads(finished.stdout))


def main(order: dict[str, t.Any]) -> None:
    """What runs in the process."""
    if order["blow"] is not None:
        _arm(Blow(**order["blow"]))
    options = order["options"]
    path, qmp_socket = options.pop("path"), options.pop("qmp_socket")
    if "argv" in options:
        options["argv"] = tuple(options["argv"])
    verb = do_save if order["verb"] == "save" else do_restore
    try:
        answer: dict[str, t.Any] = {"result": verb(qmp_socket, path, **options)}
    except VmfleetError as exc:
        answer = {"error": exc.message, "facts": exc.facts}
    print(json.dumps(answer, default=str))


def _arm(blow: Blow) -> None:
    owner, name = _find(blow.step)
    original = inspect.getattr_static(owner, name)
    function = original.__func__ if isinstance(original, classmethod) else original
    calls = [0]

    def counts(arguments: tuple[t.Any, ...]) -> bool:
        if blow.command is None or blow.command in arguments[:2]:
            calls[0] += 1
            return calls[0] == blow.nth
        return False

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def struck_async(*arguments: t.Any, **named: t.Any) -> t.Any:
            due = counts(arguments)
            if due and blow.before:
                _strike(blow, arguments)
            value = await function(*arguments, **named)
            if due and not blow.before:
                _strike(blow, arguments)
            return value

        struck: t.Any = struck_async
    else:

        @functools.wraps(function)
        def struck_plain(*arguments: t.Any, **named: t.Any) -> t.Any:
            due = counts(arguments)
            if due and blow.before:
                _strike(blow, arguments)
            value = function(*arguments, **named)
            if due and not blow.before:
                _strike(blow, arguments)
            return value

        struck = struck_plain
    setattr(owner, name, classmethod(struck) if isinstance(original, classmethod) else struck)


def _find(step: str) -> tuple[t.Any, str]:
    """The module or class that holds the function, and its name there."""
    parts = step.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner: t.Any = importlib.import_module(_MODULE_UTILS + ".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise LookupError(step)


def _strike(blow: Blow, arguments: tuple[t.Any, ...]) -> None:
    if blow.victim == TOOL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif blow.victim == QEMU:
        _kill_and_wait(blow.pid)
    elif blow.victim == MONITOR:
        link: socket.socket = arguments[0]._client._writer.get_extra_info("socket")
        socket.socket(fileno=os.dup(link.fileno())).shutdown(socket.SHUT_RDWR)
    elif blow.victim == FSYNC:
        _break_fsync()
    else:
        _kill_and_wait(_child(blow.victim))


def _kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1:
            return
        time.sleep(0.005)
    raise AssertionError(f"process {pid} outlived SIGKILL")


def _child(program: str) -> int:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == program and int(rest.split()[1]) == os.getpid():
            return int(entry.parent.name)
    raise LookupError(f"no child called {program}")


def _break_fsync() -> None:
    def fsync(fd: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fsync = fsync


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
