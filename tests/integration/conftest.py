# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests and stores of the integration tests; everything started here is ended here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

SMALL_STORE_BYTES = 4 << 20


@pytest.fixture
def short_directory() -> t.Iterator[Path]:
    """A directory whose name is short enough for UNIX socket addresses, on a real filesystem."""
    path = Path(tempfile.mkdtemp(prefix="vmf", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def tiny_guest(short_directory: Path) -> t.Iterator[t.Callable[..., TinyGuest]]:
    """Makes guests; see `TinyGuest` for the options."""
    guests: list[TinyGuest] = []

    def make(**options: t.Any) -> TinyGuest:
        directory = short_directory / f"g{len(guests)}"
        directory.mkdir()
        guests.append(TinyGuest(directory, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.kill()


@pytest.fixture
def store(short_directory: Path) -> Path:
    """An empty directory for images."""
    path = short_directory / "store"
    path.mkdir()
    return path


def _mounted(path: Path, kind: str, options: str) -> t.Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip(f"mounting a {kind} needs root; `make test` as root runs this")
    path.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_store(short_directory: Path) -> t.Iterator[Path]:
    """A store too small for a guest's RAM."""
    yield from _mounted(short_directory / "small", "tmpfs", f"size={SMALL_STORE_BYTES},mode=0700")


@pytest.fixture
def ramfs_store(short_directory: Path) -> t.Iterator[Path]:
    """A store whose filesystem refuses O_DIRECT."""
    yield from _mounted(short_directory / "ramfs", "ramfs", "mode=0700")
