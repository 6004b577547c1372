# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The program on the hosts, /usr/local/libexec/vmfleet-suspend: what a host does by itself.

It is these very module_utils as one zipapp, and needs no controller and no Ansible. The unit that
the role vm_resume installs runs ``resume``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import typing as t

from ._errors import Refused, VmfleetError
from ._host._hold import held_seconds, now, release
from ._host._journal import Journal
from ._host._journal_file import AnotherRun, open_journal, read_journals
from ._host._options import RESUME_ARGUMENTS, resume_request
from ._host._outcome import HostOutcome
from ._host._requests import ResumeRequest
from ._host._resume import resume
from ._interruptible import Interrupted, interruptible
from ._qemu._monitor import QMP_IMPORT_ERROR
from ._qemu._secrets import hide_in
from ._saveimage._trust import distrust
from ._syslog import logging
from ._version import COLLECTION_VERSION

OPTIONS_FILE = "/etc/vmfleet/resume.json"
# Every guest is back, or there was nothing to do; some are not, or it was refused; bad usage; ended
# by a signal before it did anything, as by `systemctl stop` during a hold (128 + SIGTERM).
DONE, NOT_BACK, USAGE, STOPPED = 0, 1, 2, 143
_LOOK_AGAIN_SECONDS = 5.0
_TYPES: t.Mapping[str, tuple[type, ...]] = {
    "path": (str,),
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "dict": (dict,),
    "bytes": (int, str),
}

Say = t.Callable[[str], None]
Sleep = t.Callable[[float], t.Awaitable[None]]


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.verb == "version":
        _say(COLLECTION_VERSION)
        return DONE
    try:
        request = resume_request(read_options(options.options))
        if options.verb == "status":
            return _status(request)
        if options.verb == "release":
            journal = asyncio.run(release(request.journal, request.store))
            _say("no suspend is open" if journal is None else f"released the suspend {journal.id}")
            return DONE
        _require_qmp()
        if options.verb == "check":
            _say(f"{sys.executable} can resume what {request.journal} tells of.")
            return DONE
        with logging():
            return asyncio.run(interruptible(_resume(request)))
    except Interrupted as exc:
        _say(str(exc))
        return STOPPED
    except (VmfleetError, OSError) as exc:
        _say(hide_in(str(exc)))
        return NOT_BACK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmfleet-suspend",
        description="Resume what this host suspended. Exit status: 0 every guest is back or there "
        "was nothing to do, 1 some are not, 2 usage, 143 ended before it did anything.",
    )
    parser.add_argument(
        "--options", metavar="FILE", default=OPTIONS_FILE, help="default %(default)s"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (
        ("resume", "bring back every guest of the open suspend, once nothing holds it any more"),
        ("status", "where the suspend of this host stands"),
        ("release", "end the hold: whoever waits for it resumes now"),
        ("check", "whether this Python could resume with these options"),
        ("version", "which version this is"),
    ):
        verbs.add_parser(verb, help=words, description=words)
    return parser


def read_options(path: str) -> dict[str, t.Any]:
    """Options of qemu_host_resume from a JSON file, those left out as the module has them.

    No file means no options. It says which command lines are run, so that it is refused where
    others could have written it. Raises `Refused` naming the file and the option.
    """
    try:
        with open(path, "rb") as source:
            doubt = distrust(source.fileno(), path, os.geteuid())
            if doubt is not None:
                raise Refused(f"{path} is not used, for others could have written it: {doubt}")
            given = json.loads(source.read())
    except FileNotFoundError:
        given = {}
    except ValueError as exc:
        raise Refused(f"{path} is no JSON: {exc}.") from exc
    return _completed(given, RESUME_ARGUMENTS, path)


def _completed(given: object, spec: t.Mapping[str, t.Any], path: str) -> dict[str, t.Any]:
    """With what is left out, or null, as the module has it."""
    if not isinstance(given, dict):
        raise Refused(f"{path} holds {given!r} in place of an object with options.")
    for name in given:
        if name not in spec:
            raise Refused(f"{path} has an option {name!r} that resume does not know.")
    completed = {}
    for name, option in spec.items():
        value = given.get(name)
        if value is not None:
            _check(name, value, option, path)
            completed[name] = _inside(value, option, path)
        elif option.get("required"):
            raise Refused(f"{path} holds {given!r}, which lacks {name}.")
        else:
            completed[name] = option.get("default")
    return completed


def _check(name: str, value: t.Any, option: t.Mapping[str, t.Any], path: str) -> None:
    chosen = value if isinstance(value, list) else [value]
    is_list = option.get("type") == "list"
    kind = option["elements"] if is_list else option.get("type", "str")
    known = _TYPES[kind]
    wrong = any(
        not isinstance(one, known) or (known == (int,) and isinstance(one, bool)) for one in chosen
    )
    if wrong or is_list != isinstance(value, list):
        raise Refused(
            f"{path} gives {name} as {value!r}, and not as {'a list of ' if is_list else ''}{kind}."
        )
    choices = option.get("choices")
    if choices is not None and any(one not in choices for one in chosen):
        raise Refused(f"{path} gives {name} as {value!r}, and not as one of {choices}.")


def _inside(value: t.Any, option: t.Mapping[str, t.Any], path: str) -> t.Any:
    if "options" not in option:
        return value
    if isinstance(value, list):
        return [_completed(one, option["options"], path) for one in value]
    return _completed(value, option["options"], path)


def _status(request: ResumeRequest) -> int:
    journal = open_journal(read_journals(request.journal), request.store)
    if journal is None:
        _say(f"No suspend into {request.store} is open.")
        return DONE
    for line in status_lines(journal, held_seconds(journal, now())):
        _say(line)
    return DONE


def status_lines(journal: Journal, held_for_seconds: float) -> list[str]:
    """The open suspend and its guests, for people."""
    lines = [f"suspend {journal.id} into {journal.store}"]
    if held_for_seconds:
        lines.append(f"held until {journal.hold_until} ({held_for_seconds:.0f} s more)")
    for entry in journal.entries:
        why = f": {hide_in(entry.reason)}" if entry.reason else ""
        lines.append(f"{entry.state:10} {entry.name} {entry.path}{why}")
    return lines


def _require_qmp() -> None:
    if QMP_IMPORT_ERROR is not None:
        raise Refused(
            f"{sys.executable} has no qemu.qmp. `systemctl cat vmfleet-resume.service` tells which "
            "Python to run this with; the role kvm_host makes one that has it."
        )


async def _resume(request: ResumeRequest) -> int:
    outcome = await resume_when_released(request, _say, asyncio.sleep)
    for warning in outcome.warnings:
        _say(hide_in(warning))
    _say(outcome.message)
    return DONE


async def resume_when_released(request: ResumeRequest, say: Say, sleep: Sleep) -> HostOutcome:
    """Resume, once nothing holds the guests any more and no other run is at it.

    Whoever has the journal's lock does it; the other finds nothing left to do. Raises as `resume`.
    """
    told = None
    while True:
        journal = open_journal(read_journals(request.journal), request.store)
        left = held_seconds(journal, now())
        if journal is not None and left > 0:
            waiting = (
                f"The suspend {journal.id} is held until {journal.hold_until}. `vmfleet-suspend "
                "release`, or a resume by a controller, ends that."
            )
        else:
            try:
                return await resume(request, check_mode=False)
            except AnotherRun as exc:
                left, waiting = _LOOK_AGAIN_SECONDS, exc.message
        if waiting != told:
            say(waiting)
            told = waiting
        # Not until the end of the hold: somebody may release it, or set the clock.
        await sleep(min(left, _LOOK_AGAIN_SECONDS))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
