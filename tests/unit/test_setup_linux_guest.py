# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching what the Linux guest boots, with stand-ins for apt; the script is the real one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "/bin/bash"
TOOLS = "awk chmod dirname find flock mkdir mv rm tail touch"
KERNEL, BUSYBOX = "linux-image-6.1.0-9-cloud-amd64", "busybox-static"
AGENT = "qemu-guest-agent"
KNOWN = f'case "$*" in *cloud-amd64) echo "  Depends: {KERNEL}";; esac'
UNKNOWN = "echo 'E: No packages found' >&2; exit 100"
DOWNLOAD = """for package in "${@:$#-2}"; do touch "$package.deb"; done"""
NO_NETWORK = "echo 'E: Temporary failure' >&2; exit 100"
VIRTIO = [f"kernel/drivers/virtio/{name}" for name in ("virtio.ko", "virtio_ring.ko")]
OTHERS = ["kernel/drivers/virtio/virtio_net.ko", "kernel/fs/xfs/xfs.ko", "modules.order"]


def unpack(modules: list[str]) -> str:
    """A dpkg-deb whose kernel has ``modules``, and whose busybox says what it was asked to do."""
    busybox = f"#!{BASH}\necho $1 ${{2##*/}}\n"
    return f"""case $1 in
-W) echo "$2 1.0";;
-x) case $2 in
    *linux-image*) mkdir -p "$3/boot"; echo kernel >"$3/boot/vmlinuz-6.1.0-9-cloud-amd64"
        for path in {" ".join(modules)}; do
            path=$3/lib/modules/6.1.0-9-cloud-amd64/$path
            mkdir -p "${{path%/*}}"; echo "${{path##*/}}" >"$path"
        done;;
    */{BUSYBOX}*) mkdir -p "$3/usr/bin"; printf %s {shlex.quote(busybox)} >"$3/usr/bin/busybox"
        chmod +x "$3/usr/bin/busybox";;
    */{AGENT}*) mkdir -p "$3/usr/sbin"; echo agent >"$3/usr/sbin/qemu-ga";;
    esac;;
esac"""


class Machine:
    """A checkout, and no programs but the few named here."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "programs"
        self.calls_file = directory / "calls"
        self.checkout = directory / "check out"
        self.files = self.checkout / ".build" / "linux-guest"
        self.programs.mkdir()
        self.calls_file.touch()
        shutil.copytree(CHECKOUT / "tools", self.checkout / "tools")
        for name in TOOLS.split():
            found = shutil.which(name)
            assert found is not None, name
            (self.programs / name).symlink_to(found)

    def program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f'#!{BASH}\necho "{name} $*" >>"{self.calls_file}"\n{body}\n')
        path.chmod(0o755)

    def has_apt(
        self,
        cache: str = KNOWN,
        update: str = "",
        download: str = DOWNLOAD,
        modules: list[str] = VIRTIO,
    ) -> None:
        self.program("apt-cache", cache)
        self.program(
            "apt-get", f'case "$*" in *download*)\n{download}\n;; *update*)\n{update}\n;; esac'
        )
        self.program("dpkg-deb", unpack(modules))

    def fetch(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BASH, self.checkout / "tools" / "linux_guest.sh"],
            env={"PATH": str(self.programs)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_the_packages_are_downloaded_and_unpacked_and_nothing_is_installed(machine):
    machine.has_apt()
    done = machine.fetch()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in machine.files.iterdir()) == [
        "busybox",
        "modules",
        "packages",
        "qemu-ga",
        "vmlinuz",
    ]
    assert (machine.files / "vmlinuz").read_text() == "kernel\n"
    assert os.access(machine.files / "busybox", os.X_OK)
    assert KERNEL in (machine.files / "packages").read_text()
    assert not [call for call in machine.calls if "install" in call or "update" in call]


@pytest.mark.parametrize(
    ("modules", "kept"),
    [
        pytest.param(
            [f"kernel/fs/{name}.ko" for name in ("ext4/ext4", "jbd2/jbd2", "mbcache")],
            {"19-mbcache.ko": "mbcache.ko", "20-jbd2.ko": "jbd2.ko", "21-ext4.ko": "ext4.ko"},
            id="in the order of loading",
        ),
        pytest.param(
            [*VIRTIO, *OTHERS],
            {"11-virtio_ring.ko": "virtio_ring.ko", "12-virtio.ko": "virtio.ko"},
            id="no others",
        ),
        pytest.param(
            ["kernel/drivers/block/virtio_blk.ko.xz"],
            {"16-virtio_blk.ko": "xzcat virtio_blk.ko.xz"},
            id="unpacked",
        ),
        pytest.param([], {}, id="all built in"),
    ],
)
def test_of_the_kernels_modules_those_that_a_disk_needs_are_kept(machine, modules, kept):
    machine.has_apt(modules=modules)
    done = machine.fetch()
    assert (done.returncode, done.stderr) == (0, "")
    found = (machine.files / "modules").iterdir()
    assert {path.name: path.read_text().strip() for path in found} == kept


def test_what_was_fetched_is_not_fetched_again(machine):
    machine.has_apt()
    machine.fetch()
    calls = machine.calls
    again = machine.fetch()
    assert (again.returncode, again.stdout, machine.calls) == (0, "", calls)


def test_what_was_fetched_in_an_older_layout_is_fetched_anew(machine):
    machine.has_apt()
    machine.files.mkdir(parents=True)
    (machine.files / "packages").write_text(f"{BUSYBOX}\t1.0\n")
    (machine.files / "old").touch()
    assert machine.fetch().returncode == 0
    assert (machine.files / "modules").is_dir()
    assert not (machine.files / "old").exists()


def test_what_was_fetched_in_an_older_layout_stays_until_the_new_one_is_there(machine):
    machine.has_apt(update=NO_NETWORK, download=NO_NETWORK)
    machine.files.mkdir(parents=True)
    (machine.files / "packages").write_text(f"{BUSYBOX}\t1.0\n")
    assert machine.fetch().returncode == 1
    assert (machine.files / "packages").exists()


def test_what_a_killed_run_left_is_no_obstacle(machine):
    machine.has_apt()
    (machine.files.with_name("linux-guest.new") / "root").mkdir(parents=True)
    machine.files.mkdir()
    assert machine.fetch().returncode == 0
    assert (machine.files / "packages").exists()


def test_without_apt_it_cannot_be_had(machine):
    done = machine.fetch()
    assert done.returncode == 3
    assert "no apt here" in done.stderr


def test_lists_that_do_not_know_the_packages_are_replaced_by_lists_of_its_own(machine):
    machine.has_apt(cache=f'case "$*" in *.build/apt/lists*) ;; *) {UNKNOWN};; esac\n{KNOWN}')
    assert machine.fetch().returncode == 0
    updates = [call for call in machine.calls if call.endswith("update")]
    assert len(updates) == 1
    assert f"Dir::State::Lists={machine.checkout}/.build/apt/lists" in updates[0]


def test_where_the_sources_have_no_such_kernel_it_cannot_be_had(machine):
    machine.has_apt(cache=UNKNOWN)
    done = machine.fetch()
    assert done.returncode == 3
    assert "apt's sources have none of linux-image-cloud-amd64" in done.stderr


@pytest.mark.parametrize("cache", [KNOWN, UNKNOWN], ids=["known", "unknown"])
def test_without_a_network_it_fails_in_apts_words(machine, cache):
    machine.has_apt(cache, update=NO_NETWORK, download=NO_NETWORK)
    done = machine.fetch()
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr
    assert "Temporary failure" in done.stderr
    assert not machine.files.exists()
