# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The drop-in file that lets a unit start the waiting QEMU in place of its own, once.

It lies in the runtime directory of the unit's manager, which a reboot empties, for as long as the
guest is loaded. One that a killed run left has the same name, and is replaced or removed by the
next run on this unit.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import Refused, StoreError
from ._systemd_unit import Unit

# systemd reads the drop-ins of a unit in the order of their names, whichever directory they lie in.
# This one has to come after override.conf, which is what `systemctl edit` writes.
FILE_NAME = "zz-vmfleet-suspend.conf"
_DIRECTORIES = {True: "/run/systemd/system", False: "/run/user/{}/systemd/user"}
# C escapes, as systemd.syntax(7) has them; then what systemd.service(5) would replace by specifiers
# and variables.
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%", "$": "$$"}

_TEXT = """\
# Written by vmfleet.suspend, which removes it when the guest is loaded. If no restore runs, one was
# killed: run it again, or remove this file and run `systemctl daemon-reload`.
[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
PIDFile=
RemainAfterExit=no
Restart=no
TimeoutStartSec=infinity
ExecStop=
ExecStart=
ExecStart={}
"""


def exec_line(argv: t.Sequence[str]) -> str:
    """``argv`` as the value of ``ExecStart=`` that gives exactly these words.

    Raises `Refused` for words that are not UTF-8, with which `systemctl show` fails from then on,
    and for a program without its directory.
    """
    if not os.path.isabs(argv[0]):
        raise AssertionError(f"{argv[0]} is not absolute")
    try:
        "".join(argv).encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(
            "The command line of the guest has bytes that are not UTF-8, which systemd cannot "
            "show. Restore without systemd_unit, or give argv without them."
        ) from None
    return " ".join(f'"{"".join(map(_escaped, word))}"' for word in argv)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\x{ord(character):02x}" if ord(character) < 0x20 or character == "\x7f" else character


def drop_in_text(argv: t.Sequence[str]) -> str:
    """The file: this command line, in the unit's surroundings.

    ``Type=exec``: a waiting QEMU neither forks nor notifies. ``TimeoutStartSec=infinity``: an
    ``ExecStartPost=`` may wait for the guest, which the load lets run. Without ``ExecStop=``, which
    may wait for a guest to shut down: this one does not run yet.
    """
    return _TEXT.format(exec_line(argv))


def drop_in_path(unit: Unit) -> str:
    """Where the file lies while a guest is loaded."""
    directory = _DIRECTORIES[unit.user_id is None].format(unit.user_id)
    return f"{directory}/{unit.name}.d/{FILE_NAME}"


def write_drop_in(unit: Unit, argv: t.Sequence[str]) -> str:
    """Write the file, whole or not at all, and return its path. Raises `Refused`, `StoreError`."""
    text = drop_in_text(argv).encode("utf-8")
    path = drop_in_path(unit)
    new = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        # The command line may hold secrets.
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
            target.write(text)
        os.replace(new, path)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}.") from exc
    return path


def remove_drop_in(unit: Unit) -> None:
    """Remove the file, and its directory when nothing else is in it."""
    path = drop_in_path(unit)
    for name in (path, f"{path}.new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))
