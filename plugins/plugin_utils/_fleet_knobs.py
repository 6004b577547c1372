# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The knobs of the fleet's playbooks: extra variables, read and checked once, before anything."""

from __future__ import annotations

import difflib
import json
import os
import typing as t
from dataclasses import asdict, dataclass

from ..module_utils._errors import VmfleetError
from ..module_utils._host._options import require_time

NAMES = (
    "fleet_hosts",
    "fleet_serial",
    "fleet_throttle",
    "fleet_max_fail_percentage",
    "fleet_guests",
    "protected_guests",
    "window_start",
    "window_end",
    "reserve_seconds",
    "window_tasks",
    "window_beside_guests",
    "fleet_report",
)


# How alike a variable's name is to a knob's that is meant by it.
_MISSPELLED = 0.85


class KnobInvalid(VmfleetError):
    """A knob that cannot be what it says. Names the knob."""


@dataclass(frozen=True)
class Knobs:
    """``include`` and ``exclude``: patterns on guests' names, from fleet_guests; ``protected``:
    patterns or UUIDs that are never suspended; ``serial``: sizes of batches, as Ansible's serial
    takes them; ``throttle``: hosts at once in a batch, 0 for no limit; ``max_fail_percentage``: of
    hosts, above which no further batch begins; ``window_start`` and ``window_end``: seconds since
    the epoch; ``reserve_seconds``: of the window's end that are kept; ``window_tasks`` and
    ``report``: absolute paths of a file of tasks and of a directory; ``beside_guests``: whether
    those tasks run on hosts where guests run."""

    hosts: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    protected: tuple[str, ...]
    serial: tuple[int | str, ...]
    throttle: int
    max_fail_percentage: float
    window_start: float | None
    window_end: float | None
    hold_until: str | None
    reserve_seconds: int
    window_tasks: str | None
    beside_guests: bool
    report: str

    def as_dict(self) -> dict[str, t.Any]:
        """Plain values, lists for tuples."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


def read_knobs(
    given: t.Mapping[str, t.Any], directory: str, variables: t.Iterable[str] = ()
) -> Knobs:
    """``given``: by their names, left out for the default; values from a command line are text.
    ``directory``: what relative paths are meant from; ``variables``: names of all variables, among
    which misspelled knobs are looked for. Raises `KnobInvalid`."""
    for name in sorted({*given, *variables} - set(NAMES)):
        meant = difflib.get_close_matches(name, NAMES, 1, _MISSPELLED)
        if meant or name in given:
            hint = f"Is {meant[0]} meant? " if meant else ""
            raise KnobInvalid(f"{name}: no such knob. {hint}There are {', '.join(NAMES)}.")
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise KnobInvalid(
                f"{name} is empty, as when a shell's variable was not set. Leave it out to have "
                "its default."
            )
    patterns = _texts(given, "fleet_guests")
    end = _text(given, "window_end")
    start_at, end_at = _moment(given, "window_start"), _moment(given, "window_end")
    if start_at is not None and end_at is not None and end_at <= start_at:
        raise KnobInvalid("window_end is not after window_start.")
    reserve = _number(given, "reserve_seconds", 0, int)
    if end_at is None and reserve:
        raise KnobInvalid("reserve_seconds is kept of a window's end: it needs window_end.")
    tasks = _file(given, "window_tasks", directory)
    if tasks is not None and end_at is None:
        raise KnobInvalid(
            "window_tasks needs window_end: until then a host that boots during the tasks starts "
            "no guests by itself."
        )
    return Knobs(
        hosts=",".join(_texts(given, "fleet_hosts")) or "kvm_hosts",
        include=tuple(one for one in patterns if not one.startswith("!")),
        exclude=tuple(one[1:] for one in patterns if one.startswith("!")),
        protected=_texts(given, "protected_guests"),
        serial=_serial(given),
        throttle=_number(given, "fleet_throttle", 0, int),
        max_fail_percentage=_number(given, "fleet_max_fail_percentage", 0.0, float),
        window_start=start_at,
        window_end=end_at,
        hold_until=end,
        reserve_seconds=reserve,
        window_tasks=tasks,
        beside_guests=_truth(given, "window_beside_guests"),
        report=os.path.normpath(
            os.path.join(directory, _text(given, "fleet_report") or "vmfleet-report")
        ),
    )


def _text(given: t.Mapping[str, t.Any], name: str) -> str | None:
    value = given.get(name)
    return str(value).strip() or None if value is not None else None


def _texts(given: t.Mapping[str, t.Any], name: str) -> tuple[str, ...]:
    """A list, or text: JSON, or words between commas."""
    value = given.get(name) or []
    if isinstance(value, str):
        value = _from_json(name, value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        raise KnobInvalid(f"{name} is {value!r}: it takes a list, or words between commas.")
    return tuple(str(one).strip() for one in value if str(one).strip())


def _from_json(name: str, text: str) -> t.Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise KnobInvalid(f"{name} is {text!r}, which is not JSON: {exc}.") from exc


def _truth(given: t.Mapping[str, t.Any], name: str) -> bool:
    value = given.get(name, False)
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    known = value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if known is None:
        raise KnobInvalid(f"{name} is {value!r}: it takes true or false.")
    return known


def _number(given: t.Mapping[str, t.Any], name: str, default: t.Any, kind: t.Any) -> t.Any:
    value = given.get(name)
    if value is None or value == "":
        return default
    try:
        number = kind(value)
    except (TypeError, ValueError):
        raise KnobInvalid(f"{name} is {value!r}: it takes a number.") from None
    if number < 0:
        raise KnobInvalid(f"{name} is {value!r}: it takes no negative number.")
    return number


def _serial(given: t.Mapping[str, t.Any]) -> tuple[int | str, ...]:
    value = given.get("fleet_serial")
    if value is None or value == "":
        return ("100%",)
    sizes = [value] if isinstance(value, int) else _texts({"fleet_serial": value}, "fleet_serial")
    return tuple(_size(one) for one in sizes)


def _size(text: int | str) -> int | str:
    digits = str(text)[:-1] if str(text).endswith("%") else str(text)
    try:
        if float(digits) > 0:
            return str(text) if str(text).endswith("%") else int(digits)
    except ValueError:
        pass
    raise KnobInvalid(
        f"fleet_serial names {text!r}: it takes numbers of hosts and percentages above 0, such as "
        "1,25%,100%."
    )


def _moment(given: t.Mapping[str, t.Any], name: str) -> float | None:
    text = _text(given, name)
    return require_time(name, text).timestamp() if text is not None else None


def _file(given: t.Mapping[str, t.Any], name: str, directory: str) -> str | None:
    text = _text(given, name)
    if text is None:
        return None
    path = os.path.normpath(os.path.join(directory, os.path.expanduser(text)))
    if not os.path.isfile(path):
        raise KnobInvalid(
            f"{name} is {text!r}, and there is no file {path}. A relative path is meant from the "
            "directory in which ansible-playbook was called; give an absolute one."
        )
    return path
