# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save or a restore in a process of its own, in which something dies at a named step.

The code under test knows nothing of it: the step is a function, and the function is wrapped here.

    python -m ...tests.support.stricken '{"verb": "save", "options": {...}, "blows": [{...}]}'

prints what the module would return, or the error's message and facts, as one JSON object. Without
an order it reads orders, one a line, and forks for each: a tenth of a second is saved each time.
"""

from __future__ import annotations

import contextlib
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
import traceback
import typing as t
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import Monitor
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save
from ansible_collections.vmfleet.suspend.tests.support.host_drive import Host

_MODULE_UTILS = "ansible_collections.vmfleet.suspend.plugins.module_utils."
_SECONDS = 60

# Who dies.
TOOL = "the tool"
QEMU = "QEMU"
MONITOR = "the monitor's connection"
FSYNC = "fsync"  # the call fails with EIO from then on
ONE_FSYNC = "one fsync"  # only the next call does

# A step that is any call which changes something outside: see `_is_effect`.
EFFECT = "effect"
_FILE_EFFECTS = ("pwrite", "fsync", "rename", "unlink", "ftruncate", "open")


@dataclass(frozen=True)
class Blow:
    """``step``: dotted path of a function in module_utils, or EFFECT; its ``nth`` call is struck,
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
    """Run ``verb`` (save, restore, suspend or resume) in a new process, struck by ``blow``.

    ``options`` of a suspend or resume hold ``directory``, that of its `Host`.
    """
    finished = subprocess.run(
        [sys.executable, "-m", __name__, _order(verb, options, blow)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if finished.returncode == -signal.SIGKILL:
        return End(killed=True)
    assert finished.returncode == 0, finished.stderr
    return End(killed=False, **json.loads(finished.stdout))


class StrickenRuns:
    """Many runs as by `run_stricken`, forked from one process that has everything loaded."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, verb: str, options: dict[str, t.Any], *blows: Blow) -> End:
        """Run ``verb`` in a new process, struck by each of ``blows``."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(_order(verb, options, *blows) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        assert "broken" not in answer, answer["broken"]
        return End(**answer)


@contextlib.contextmanager
def stricken_runs() -> t.Iterator[StrickenRuns]:
    """Start the process that forks, and end it."""
    command = [sys.executable, "-m", __name__]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=_environment(), stdin=pipe, stdout=pipe, text=True
    ) as server:
        yield StrickenRuns(server)


def _order(verb: str, options: dict[str, t.Any], *blows: Blow | None) -> str:
    struck = [asdict(blow) for blow in blows if blow is not None]
    return json.dumps({"verb": verb, "options": options, "blows": struck})


def _environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))


def serve() -> None:
    """Answer the orders of a `StrickenRuns` until it is gone."""
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _answer_into(writer, json.loads(line))
        os.close(writer)
        with open(reader, encoding="utf-8") as answers:
            answer = answers.read()
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            print('{"killed": true}', flush=True)
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            print(json.dumps({"killed": False, **json.loads(answer)}), flush=True)
        else:
            print(json.dumps({"broken": f"{status}: {answer}"}), flush=True)


def _answer_into(writer: int, order: dict[str, t.Any]) -> t.NoReturn:
    with open(writer, "w", encoding="utf-8") as answer:
        try:
            answer.write(run_order(order))
        except BaseException:
            answer.write(traceback.format_exc())
            answer.flush()
            os._exit(1)
    os._exit(0)


def run_order(order: dict[str, t.Any]) -> str:
    """What runs in the process; returns its answer."""
    for blow in order["blows"]:
        _arm(Blow(**blow))
    try:
        answer: dict[str, t.Any] = {"result": _do(order["verb"], order["options"])}
    except VmfleetError as exc:
        answer = {"error": exc.message, "facts": exc.facts}
    return json.dumps(answer, default=str)


def _do(verb: str, options: dict[str, t.Any]) -> t.Any:
    if verb in ("suspend", "resume"):
        return getattr(Host(Path(options.pop("directory"))), verb)(**options)
    path, qmp_socket = options.pop("path"), options.pop("qmp_socket")
    if "argv" in options:
        options["argv"] = tuple(options["argv"])
    return (do_save if verb == "save" else do_restore)(qmp_socket, path, **options)


def _arm(blow: Blow) -> None:
    calls = [0]

    def counts(name: str, arguments: tuple[t.Any, ...]) -> bool:
        if blow.command not in (None, *arguments[:2]):
            return False
        if blow.step == EFFECT and not _is_effect(name, arguments):
            return False
        calls[0] += 1
        return calls[0] == blow.nth

    if blow.step == EFFECT:
        for name in _FILE_EFFECTS:
            _wrap(os, name, blow, counts)
        _wrap(Monitor, "execute", blow, counts)
        _wrap(Monitor, "_send_fd", blow, counts)
    else:
        _wrap(*_find(blow.step), blow, counts)


def _is_effect(name: str, arguments: tuple[t.Any, ...]) -> bool:
    """Whether a call changes a file or QEMU. query-migrate counts: QEMU works on until then."""
    if name == "open":
        return bool(arguments[1] & os.O_CREAT)
    if name == "execute":
        command = str(arguments[1])
        return command == "query-migrate" or not command.startswith(
            ("query-", "qom-", "human-monitor-command")
        )
    return True


def _wrap(
    owner: t.Any, name: str, blow: Blow, due_at: t.Callable[[str, tuple[t.Any, ...]], bool]
) -> None:
    original = inspect.getattr_static(owner, name)
    function = original.__func__ if isinstance(original, classmethod) else original

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def struck_async(*arguments: t.Any, **named: t.Any) -> t.Any:
            due = due_at(name, arguments)
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
            due = due_at(name, arguments)
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
    elif blow.victim in (FSYNC, ONE_FSYNC):
        _break_fsync(once=blow.victim == ONE_FSYNC)
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
            name, _closing, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == program and int(rest.split()[1]) == os.getpid():
            return int(entry.parent.name)
    raise LookupError(f"no child called {program}")


def _break_fsync(*, once: bool) -> None:
    working = os.fsync

    def fsync(fd: t.Any) -> None:
        if once:
            os.fsync = working
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fsync = fsync


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(run_order(json.loads(sys.argv[1])))
    else:
        serve()
