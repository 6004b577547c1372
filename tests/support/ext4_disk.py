# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's disk seen from the host: a qcow2 with ext4 on it, made, looked at and checked.

Nothing is mounted and root is not needed: qemu-img and e2fsprogs work on files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_SIZE_MIB = 64
# Where Debian has e2fsprogs; PATH leads there for root only.
_SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_PROGRAMS = {
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "qemu-img": "qemu-utils",
}
_REPAIRED = 1  # e2fsck's exit status where it has mended all that was wrong


def needs_disk_programs() -> None:
    """Skip where a program is missing that makes such a disk or reads it."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=_SEARCH_PATH) is None:
            pytest.skip(f"needs the program {program}: install {package}")


class Ext4Disk:
    """A new qcow2 at ``path`` with an empty ext4, whose size in MiB is ``size_mib``."""

    def __init__(self, path: Path, size_mib: int = _SIZE_MIB) -> None:
        self.path = path
        raw = path.with_name(f"{path.name}.raw")
        with raw.open("wb") as file:
            file.truncate(size_mib << 20)
        # Else the guest's kernel would go on making the file system while it is in use.
        now = "lazy_itable_init=0,lazy_journal_init=0"
        _run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", now, raw)
        _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
        raw.unlink()

    def look(self, path: Path) -> FileSystem:
        """What a machine would find on the disk if the guest were lost now: a copy, at ``path``.

        No QEMU may have the disk open for writing.
        """
        _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path, path)
        return FileSystem(path)


class FileSystem:
    """An ext4 in the raw file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def was_unmounted(self) -> bool:
        """Whether its last user left nothing in the journal that has yet to be put in its place."""
        return "needs_recovery" not in self._ask("features").split()

    def recover(self) -> None:
        """Do what the next mount would do: put in its place what the journal has."""
        _run("e2fsck", "-p", self.path, allowed=(0, _REPAIRED))

    def problems(self) -> str:
        """What e2fsck finds when it checks everything and changes nothing; "" when all is well."""
        checked = _start("e2fsck", "-f", "-n", self.path)
        return checked.stdout.decode(errors="replace") if checked.returncode else ""

    def read(self, name: str) -> bytes:
        """The content of the file ``name`` in the uppermost directory."""
        return self._ask_for_bytes(f"cat /{name}")

    def _ask(self, request: str) -> str:
        return self._ask_for_bytes(request).decode()

    def _ask_for_bytes(self, request: str) -> bytes:
        asked = _run("debugfs", "-R", request, self.path)
        # Its exit status is 0 whatever happens; its first words are its name and version.
        _version, *complaints = asked.stderr.decode(errors="replace").splitlines()
        assert not complaints, complaints
        return asked.stdout


def _run(
    program: str, *arguments: str | Path, allowed: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    done = _start(program, *arguments)
    assert done.returncode in allowed, (program, done)
    return done


def _start(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    found = shutil.which(program, path=_SEARCH_PATH)
    assert found is not None, f"{program} is missing: needs_disk_programs() was not asked"
    return subprocess.run([found, *arguments], capture_output=True, check=False)
