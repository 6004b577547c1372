# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""virsh, for the one thing that libvirt-python cannot say before its 12.1: how many channels.

Its table of types lacks parallel.channels, so that the number goes out as one of the wrong type
(spec/libvirt.md 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import typing as t

from .._errors import LibvirtError
from .._uninterrupted import uninterrupted

_INVALID_ARGUMENT = 8  # libvirt include/libvirt/virterror.h
# The daemon's words are in its own language; the parameter's name is not.
_PARAMETER = "parallel.channels"


def lacks_channels(error: LibvirtError) -> bool:
    """Whether a call failed because the binding cannot say how many channels. libvirt looks at the
    types before anything else, so nothing was done."""
    return error.code == _INVALID_ARGUMENT and _PARAMETER in error.description


def can_say_channels() -> bool:
    """Whether channels can be asked for, whatever the binding: a preference for them is no reason
    to fail."""
    return shutil.which("virsh") is not None


async def virsh(uri: str, doing: str, *words: str, domain_xml: str | None = None) -> None:
    """Run one command to its end, which a cancellation does not end either: whoever cancels aborts
    the domain's job. Raises `LibvirtError` with virsh's own words, without a number."""
    program = shutil.which("virsh")
    if program is None:
        raise LibvirtError(
            doing,
            "this libvirt-python cannot ask for parallel channels (12.1 can), and there is no "
            "virsh to do it with. Install one of them, or set parallel_channels to 1.",
            0,
        )
    with _as_file(domain_xml) as (options, fds):
        process = await asyncio.create_subprocess_exec(
            program,
            "--quiet",
            "--connect",
            uri,
            *words,
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=fds,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        _out, said = await uninterrupted(process.communicate())
    if process.returncode != 0:
        ended = f"virsh ended with status {process.returncode}"
        raise LibvirtError(doing, _words(said) or ended, 0)


def _words(said: bytes) -> str:
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join(line.partition("error: ")[2] or line for line in lines)


@contextlib.contextmanager
def _as_file(text: str | None) -> t.Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    if text is None:
        yield (), ()
        return
    fd = os.memfd_create("domain-xml", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode("utf-8"))
        yield ("--xml", f"/proc/self/fd/{fd}"), (fd,)
    finally:
        os.close(fd)
