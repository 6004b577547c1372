# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Asking systemd: `systemctl`, which is there wherever systemd is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shlex
import typing as t

from .._errors import Refused, VmfleetError
from .._uninterrupted import within
from ._systemd_unit import Unit

# What is asked of a unit. None of these has a value of several lines.
_PROPERTIES = (
    "ActiveState",
    "ControlGroup",
    "DropInPaths",
    "ExecMainCode",
    "ExecMainStatus",
    "Id",
    "Job",
    "LoadState",
    "MainPID",
    "Restart",
    "Result",
    "SubState",
    "Type",
)
_SYSTEM = "/run/systemd/system"
_USER = "/run/user/{}"
# A daemon-reload takes long on a host with many units.
_ANSWER_SECONDS = 120.0


class SystemdError(VmfleetError):
    """systemd refused, failed, or does not answer."""


def system_runs() -> bool:
    """Whether systemd runs this host; the test is sd_booted(3)'s."""
    return os.path.isdir(_SYSTEM)


def require_manager(unit: Unit) -> None:
    """Raise `Refused` when the systemd that this unit would belong to does not run.

    A user's manager listens in the user's runtime directory.
    """
    if unit.user_id is None and not system_runs():
        raise Refused(
            f"No systemd runs here (there is no {_SYSTEM}), so {unit} cannot be used. Leave "
            "systemd_unit out."
        )
    runtime = _USER.format(unit.user_id)
    if unit.user_id is not None and not os.path.exists(f"{runtime}/systemd/private"):
        raise Refused(
            f"No systemd of the user {unit.user_id} runs here (there is no "
            f"{runtime}/systemd/private), so {unit} cannot be used. Run as root for a unit of the "
            "system, log in as that user (loginctl enable-linger keeps its systemd), or leave "
            "systemd_unit out."
        )


async def systemctl(unit: Unit, *words: str) -> str:
    """What `systemctl` prints when told ``words``, by the manager of this unit.

    Raises `Refused` when that manager does not run, `SystemdError` when it says no.
    """
    require_manager(unit)
    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    if unit.user_id is not None:
        environment["XDG_RUNTIME_DIR"] = _USER.format(unit.user_id)
    command = [*_program(unit.user_id), "--no-pager", "--no-ask-password", *words]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except OSError as exc:
        raise SystemdError(f"{command[0]} cannot be run: {exc.strerror}.") from exc
    try:
        output, said = await within(_ANSWER_SECONDS, process.communicate())
    except asyncio.TimeoutError:
        raise SystemdError(
            f"systemd did not answer `{' '.join(command)}` within {_ANSWER_SECONDS:g} s."
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise SystemdError(
            f"`{' '.join(command)}` failed (exit status {process.returncode}): "
            f"{said.decode('utf-8', 'replace').strip()}"
        )
    return output.decode("utf-8", "replace")


def _program(user_id: int | None) -> tuple[str, ...]:
    if user_id is None:
        return ("systemctl",)
    program = ("systemctl", "--user")
    if user_id == os.geteuid():
        return program
    # A user's manager answers nobody else, not even root.
    try:
        group_id = pwd.getpwuid(user_id).pw_gid
    except KeyError:
        group_id = user_id
    return ("setpriv", f"--reuid={user_id}", f"--regid={group_id}", "--clear-groups", *program)


async def properties(unit: Unit) -> t.Mapping[str, str]:
    """The unit as systemd has it in memory, all of `_PROPERTIES`; "" for what it does not have.

    A unit that does not exist has ``LoadState=not-found``.
    """
    answer = await systemctl(unit, "show", f"--property={','.join(_PROPERTIES)}", "--", unit.name)
    found = dict.fromkeys(_PROPERTIES, "")
    for line in answer.splitlines():
        name, _equals, value = line.partition("=")
        found[name] = value
    return found


def items_of(shown: str) -> list[str]:
    """A property that is a list, as systemctl shows it: those that need it are quoted as for a
    shell, such as units with ``\\x2d`` in their names."""
    return shlex.split(shown)
