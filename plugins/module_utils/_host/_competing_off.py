# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Switching off who competes until the guests are resumed, and on again.

By one persistent drop-in file for the unit, and nothing else: whether it is enabled, masked or
active, its own files and those of the operator stay as they are, so that taking the file away gives
back exactly what was there. The file says what it is, to whoever finds it.

libvirt-guests gets an empty ``ExecStop=``. To stop the service would run that command, which saves
or shuts down the guests; to disable it changes nothing for one that is active, whose ExecStop= is
run when the host goes down; its environment cannot be overridden, for its script sets every
variable itself (`_competing_libvirt`). To mask it would do, but fails where the unit's own file
lies in /etc, and leaves it inactive after the boot. Its ``start`` stays: with nothing ever stopped
there is no list of guests to start, so that it only counts as started again.

A guest's unit gets a condition that holds only while a restore of ours loads the guest into it
(`_qemu._systemd_drop_in`): neither a boot nor an operator starts a fresh guest, and a restore needs
not know. A unit whose condition does not hold is skipped, and has not failed.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import Refused, StoreError, VmfleetError
from .._qemu._systemctl import SystemdError, items_of, properties, system_runs, systemctl
from .._qemu._systemd_drop_in import drop_in_path
from .._qemu._systemd_unit import Unit
from ._competing_values import LIBVIRT_GUESTS, UNIT_START, Starter

_DIRECTORY = "/etc/systemd/system"
# Before that of a restore, which has to come last, and after an operator's own.
_FILE_NAME = "zz-vmfleet-host.conf"
_HEAD = """\
# Written by vmfleet.suspend while guests of this host are suspended; removed when they are resumed.
# If they never will be: remove this file and run `systemctl daemon-reload`.
"""
_NO_STOP = f"{_HEAD}[Service]\nExecStop=\n"
_ONLY_A_RESTORE = f"{_HEAD}[Unit]\nConditionPathExists={{}}\n"

Record = t.Dict[str, str]


def hold_path(unit_name: str) -> str:
    """Where the drop-in file of a unit of the system lies."""
    return f"{_DIRECTORY}/{unit_name}.d/{_FILE_NAME}"


def plan_disable(starter: Starter) -> Record:
    """What `apply_disable` will do, and `put_back` undo; for the journal, before either.

    ``kind``, ``unit``, ``path`` of the drop-in file and its ``text``.
    """
    if not starter.can_disable:
        raise AssertionError(f"{starter.name} cannot be switched off")
    texts = {
        LIBVIRT_GUESTS: _NO_STOP,
        UNIT_START: _ONLY_A_RESTORE.format(drop_in_path(Unit(starter.name))),
    }
    return {
        "kind": starter.kind,
        "unit": starter.name,
        "path": hold_path(starter.name),
        "text": texts[starter.kind],
    }


async def apply_disable(record: Record) -> None:
    """Switch it off, durably; again does no harm.

    Raises `StoreError` when the file cannot be written, `SystemdError` when systemd does not take
    it or the service is being stopped at this moment. `put_back` then tidies up.
    """
    unit = _checked(record)
    _write(record["path"], record["text"])
    await systemctl(unit, "daemon-reload")
    now = await properties(unit)
    if record["path"] not in items_of(now["DropInPaths"]):
        raise SystemdError(
            f"systemd does not use {record['path']}. See `systemctl cat {unit.name}`; units that "
            "it does not read from the usual directories have to be disabled by hand."
        )
    if now["ActiveState"] == "deactivating":
        raise SystemdError(
            f"{unit.name} is being stopped at this moment. Wait until it has ended its work."
        )


async def put_back(record: Record) -> list[str]:
    """Switch it on again; returns what was done, nothing the second time.

    A file that somebody has changed since is left, and that is told. Raises as `apply_disable`.
    """
    unit = _checked(record)
    path = record["path"]
    done = []
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            found: str | None = source.read()
    except FileNotFoundError:
        found = None
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc
    if found is not None and found != record["text"]:
        return [f"left {path} as it is: somebody has changed it"]
    _remove(path)
    if found is not None:
        done.append(f"removed {path}")
    # A run that died may have removed the file alone.
    if system_runs() and path in items_of((await properties(unit))["DropInPaths"]):
        await systemctl(unit, "daemon-reload")
        done.append(f"had systemd read {unit.name} again")
    return done


async def put_all_back(
    records: t.Iterable[t.Mapping[str, t.Any]],
) -> tuple[list[str], VmfleetError | None]:
    """Switch on all of them: what was done, and the first failure, which keeps nobody else off."""
    done: list[str] = []
    failure = None
    for record in records:
        try:
            done += await put_back(dict(record))
        except VmfleetError as exc:
            failure = failure or exc
    return done, failure


def _checked(record: Record) -> Unit:
    """Nothing but our own files is ever written or removed, whatever a journal says."""
    if record["path"] != hold_path(record["unit"]) or "/" in record["unit"]:
        raise Refused(
            f"The journal names {record['path']} for the systemd unit {record['unit']}, which this "
            "version does not write. Look at the file and remove it by hand."
        )
    return Unit(record["unit"])


def _write(path: str, text: str) -> None:
    """Whole or not at all, and there after a power failure: the host may be about to go down."""
    directory = os.path.dirname(path)
    new = f"{path}.new"  # systemd reads only *.conf
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.replace(new, path)
        for place in (directory, os.path.dirname(directory)):
            _flush(place)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}.") from exc


def _remove(path: str) -> None:
    """The file, what a write that failed left beside it, and the directory if nothing else is in
    it; whichever of them is there."""
    directory = os.path.dirname(path)
    try:
        for name in (path, f"{path}.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        if os.path.isdir(directory):
            _flush(directory)
    except OSError as exc:
        raise StoreError(f"{path} cannot be removed: {exc.strerror}.") from exc
    with contextlib.suppress(OSError):  # an operator's own files may be in it
        os.rmdir(directory)


def _flush(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
