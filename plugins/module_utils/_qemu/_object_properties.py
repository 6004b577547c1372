# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Whether a QEMU program can map RAM from a file that it must not change: asked of the program."""

from __future__ import annotations

import asyncio
import re

from .._errors import Refused
from .._uninterrupted import within
from ._launch import resolve_program
from ._mapped_argv import NEEDED_PROPERTIES

_OBJECT = "memory-backend-file"
_PROPERTY = re.compile(r"^\s+([a-z0-9-]+)=", re.MULTILINE)
_SECONDS = 30.0


def missing_properties(help_text: str) -> tuple[str, ...]:
    """Those of `NEEDED_PROPERTIES` that QEMU does not list."""
    offered = set(_PROPERTY.findall(help_text))
    return tuple(name for name in NEEDED_PROPERTIES if name not in offered)


async def refuse_old_qemu(program: str) -> None:
    """Raise `Refused` when the program's memory backends lack a property that lazy loading needs;
    it is run once, with nothing but the question."""
    missing = missing_properties(await _help(program))
    if missing:
        raise Refused(
            f"The guest's RAM cannot be mapped from its image: {program} has no property "
            f"{', '.join(missing)} of {_OBJECT} (rom needs QEMU 8.2 or newer). Set load to eager."
        )


async def _help(program: str) -> str:
    asked = await asyncio.create_subprocess_exec(
        resolve_program(program),
        "-object",
        f"{_OBJECT},help",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said, _none = await within(_SECONDS, asked.communicate())
    except asyncio.TimeoutError:
        return ""
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
    return said.decode("utf-8", "replace")
