# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The two programs that stand between this run and a QEMU it starts.

The launcher is this run's child and QEMU's parent. The stage becomes QEMU: it takes on the
surroundings and executes the program, under the same pid. Both are Python's -c words, run with -I:
nothing of the directory they start in is imported.
"""

from __future__ import annotations

import json
import typing as t

# Tells QEMU's pid once its program was begun, then how it ended. Killed without harm to QEMU when
# nobody asks any more, and gone by itself when its reader is (POLLERR). Python ignores two signals,
# and a program would inherit that. A stage keeps the pipe open until it begins the program;
# systemd-run passes it on.
LAUNCHER = """
import os, select, signal, sys
begun, begins = os.pipe()
child = os.fork()
if child == 0:
    staged, *command = sys.argv[1:]
    if staged == "staged":
        os.set_inheritable(begins, True)
        command.append(str(begins))
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        os.execvp(command[0], command)
    except OSError as exc:
        os.write(2, f"{command[0]}: {exc.strerror}".encode())
    os._exit(127)
os.close(begins)
os.read(begun, 1)
print(child, flush=True)
reader = select.poll()
reader.register(1, 0)
ended = 0
while not ended:
    if reader.poll(20):
        os._exit(0)
    ended, status = os.waitpid(child, os.WNOHANG)
print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""

# Limits and groups need what the user id gives up; the directory and the program are entered as
# the user, who must be allowed to. The environment is QEMU's alone: LD_PRELOAD would otherwise be
# loaded while this is still root. It never goes on as another user than it was told to be.
STAGE = """
import contextlib, json, os, resource, signal, sys
begins = int(sys.argv[1])

def raw(text):
    return text.encode("utf-8", "surrogateescape")

try:
    step = "read its setting"
    setting = json.load(sys.stdin)
    for name, pair in setting["limits"].items():
        step = f"set {name} to {pair}"
        pair = [resource.RLIM_INFINITY if limit is None else limit for limit in pair]
        resource.setrlimit(getattr(resource, name), pair)
    if setting["credentials"] is not None:
        user, group, groups = setting["credentials"]
        step = f"become user {user} with group {group}"
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        if os.getresuid() != (user,) * 3 or os.getresgid() != (group,) * 3:
            raise ValueError("nothing happened")
    step = "enter the directory " + setting["cwd"]
    os.chdir(raw(setting["cwd"]))
    os.umask(setting["umask"])
    step = "run " + setting["argv"][0]
    argv = [raw(word) for word in setting["argv"]]
    environment = {raw(name): raw(value) for name, value in setting["environment"].items()}
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.set_inheritable(begins, False)
    os.execve(argv[0], argv, environment)
except Exception as exc:
    reason = getattr(exc, "strerror", None) or exc
    os.write(2, f"cannot {step}: {reason}".encode("utf-8", "replace"))
os._exit(126)
"""


def stage_words(python: str) -> tuple[str, ...]:
    """The command that becomes QEMU; the launcher adds the number of its pipe."""
    return (python, "-I", "-c", STAGE)


def stage_input(
    argv: t.Sequence[str],
    *,
    cwd: str,
    environment: t.Mapping[str, str],
    umask: int,
    limits: t.Mapping[str, tuple[int | None, int | None]],
    credentials: tuple[int, int, tuple[int, ...]] | None,
) -> bytes:
    """What the stage reads from its standard input, where no other user sees it.

    ``argv``: its first word is a path. ``limits``: those to set. ``credentials``: user, group and
    supplementary groups; None to stay as this run is.
    """
    setting = {
        "argv": list(argv),
        "cwd": cwd,
        "environment": dict(environment),
        "umask": umask,
        "limits": {name: list(pair) for name, pair in limits.items()},
        "credentials": credentials,
    }
    return json.dumps(setting).encode("ascii")
