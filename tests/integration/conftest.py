# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that run real guests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt import _managed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import lift
from ansible_collections.vmfleet.suspend.tests.support.guest import QEMU, QEMU_MISSING, TinyGuest
from ansible_collections.vmfleet.suspend.tests.support.kill_table import KillTable
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import (
    LibvirtHost,
    libvirt_missing,
)
from ansible_collections.vmfleet.suspend.tests.support.linux_guest import LinuxFiles
from ansible_collections.vmfleet.suspend.tests.support.systemd_host import SystemdHost, why_not

NOBODY = 65534
SMALL_STORE_BYTES = 4 << 20
LINUX_CANNOT_BE_HAD = 3  # what tools/linux_guest.sh ends with then


def _guests(directory: Path) -> Iterator[Callable[..., TinyGuest]]:
    """A factory of guests, called like `TinyGuest` without the path; all end with the fixture."""
    if shutil.which(QEMU) is None:
        pytest.fail(QEMU_MISSING)
    guests: list[TinyGuest] = []

    def make(*arguments: Any, **options: Any) -> TinyGuest:
        guests.append(TinyGuest(directory, *arguments, **options))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Path:
    """The directory of programs of ansible-core 2.18, 2.19, or what the tests run with."""
    version = request.param
    if version == "newest":
        return Path(sys.executable).parent
    made = subprocess.run(
        [CHECKOUT / "tools" / "controller.sh", version],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@pytest.fixture
def tiny_guest(tmp_path: Path) -> Iterator[Callable[..., TinyGuest]]:
    """A factory of guests, called like `TinyGuest` without the path; all end with the test."""
    yield from _guests(tmp_path)


@pytest.fixture(scope="module")
def module_tiny_guest(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., TinyGuest]]:
    """As `tiny_guest`; all end with the module."""
    yield from _guests(tmp_path_factory.mktemp("guests"))


@pytest.fixture
def ran(tiny_guest: Callable[..., TinyGuest]) -> Callable[..., TinyGuest]:
    """A factory of guests that have checked their memory once."""

    def start(**options: Any) -> TinyGuest:
        guest = tiny_guest(**options)
        guest.start()
        guest.wait_passes(1)
        return guest

    return start


@pytest.fixture
def ran_by_nobody(tiny_guest: Callable[..., TinyGuest], tmp_path: Path) -> Iterator[TinyGuest]:
    """A guest that has checked its memory once, and whose QEMU the user nobody runs."""
    if os.geteuid() != 0:
        pytest.skip("only root can run QEMU as another user")
    guest = tiny_guest()
    for place in (guest.directory, guest.disk_path, guest.serial_path.parent):
        os.chown(place, NOBODY, NOBODY)
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_mode & 0o077 == 0:
            place.chmod(0o711)
    guest.run(
        guest.argv(),
        user=NOBODY,
        group=NOBODY,
        extra_groups=[NOBODY],
        cwd="/",  # its QEMU is started there again, and the checkout may be closed to nobody
    ).wait_passes(1)
    yield guest
    guest.kill()


@pytest.fixture(scope="session")
def linux_files(request: pytest.FixtureRequest) -> LinuxFiles:
    """What a Linux guest is made of; fetched once per checkout."""
    if shutil.which(QEMU) is None:
        pytest.fail(QEMU_MISSING)
    checkout = request.config.rootpath
    fetched = subprocess.run(
        [checkout / "tools" / "linux_guest.sh"], capture_output=True, text=True, check=False
    )
    if fetched.returncode == LINUX_CANNOT_BE_HAD:
        # No apt to fetch from: says what is missing. A download that fails is a failure, below.
        pytest.skip(fetched.stderr.strip())
    if fetched.returncode != 0:
        pytest.fail(fetched.stderr)
    return LinuxFiles.of(checkout / ".build" / "linux-guest")


@pytest.fixture
def systemd_host(tmp_path: Path) -> Iterator[SystemdHost]:
    """A systemd of the test's own, which may write where the test and its guests do."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "host").mkdir()
    host = SystemdHost(tmp_path / "host", [tmp_path, Path(tempfile.gettempdir())])
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[LibvirtHost]:
    """A libvirtd of the tests' own."""
    missing = libvirt_missing()
    if missing is not None:
        pytest.skip(missing)
    host = LibvirtHost()
    try:
        yield host.start()
    finally:
        host.close()


@pytest.fixture
def domain(libvirt_host: LibvirtHost, tmp_path: Path) -> Iterator[LibvirtTinyGuest]:
    """A domain on it whose guest has checked its memory once."""
    guest = LibvirtTinyGuest(tmp_path, libvirt_host)
    guest.start()
    guest.wait_passes(1)
    yield guest
    guest.close()
    libvirt_host.virsh("undefine", guest.name)


@pytest.fixture
def managed_saves(libvirt_host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tests' daemon keeps them: its directories are its own."""
    directory = libvirt_host.directory / "lib" / "qemu" / "save"
    monkeypatch.setattr(_managed, "SYSTEM_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def sparse(libvirt_host: LibvirtHost) -> Iterator[str]:
    """The daemon writes managed saves as sparse; gives its qemu.conf."""
    conf = libvirt_host.directory / "etc" / "qemu.conf"
    before = conf.read_text("utf-8")
    conf.write_text(before + 'save_image_format = "sparse"\n', "utf-8")
    libvirt_host.restart(fresh=False)
    yield str(conf)
    conf.write_text(before, "utf-8")
    libvirt_host.restart(fresh=False)


@pytest.fixture(scope="session")
def kill_table(request: pytest.FixtureRequest) -> Iterator[KillTable]:
    """The page of what dies when."""
    page = request.config.rootpath / "docs" / "docsite" / "rst" / "killed.rst"
    table = KillTable(page, write=request.config.getoption("--write-docs"))
    yield table
    table.finish()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """An empty directory for images; those that a guest ran from can be removed afterwards."""
    path = tmp_path / "store"
    path.mkdir()
    yield path
    for image in filter(Path.is_file, path.iterdir()):
        with image.open("rb") as file:
            lift(file.fileno(), str(image))


def _mounted(path: Path, kind: str, options: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip(f"mounting a {kind} needs root; `make test` as root runs this")
    path.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    """A store too small for a guest's RAM."""
    yield from _mounted(tmp_path / "small", "tmpfs", f"size={SMALL_STORE_BYTES},mode=0700")


@pytest.fixture
def ramfs_store(tmp_path: Path) -> Iterator[Path]:
    """A store whose filesystem refuses O_DIRECT."""
    yield from _mounted(tmp_path / "ramfs", "ramfs", "mode=0700")
