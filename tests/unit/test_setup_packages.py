# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The set-up commands' rules about system packages, with every program they call replaced.

The scripts are the real ones; ``apt-get`` and its like are stand-ins that come first in PATH and
write down how they were called.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "/bin/bash"

SIMULATED_INSTALLATION = (
    "Inst qemu-system-x86 (1:10.0.2+ds-2 Debian:12 [amd64])\nConf qemu-system-x86"
)
BACKPORTS = """\
Types: deb
URIs: http://mirror.example/debian/
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/k.gpg
"""


class Machine:
    """A Debian 12 as the set-up scripts see it: an old QEMU in the archive, Python with venv."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "programs"
        self.sources = directory / "sources.list.d"
        self.calls_file = directory / "calls"
        self.checkout = directory / "checkout"
        self.stand_ins = ["running_guests() { :; }", "distribution_codename() { echo bookworm; }"]
        for made in (self.programs, self.sources, self.checkout):
            made.mkdir()
        self.calls_file.touch()
        shutil.copytree(CHECKOUT / "tools", self.checkout / "tools")
        entry = self.sources / "debian.sources"
        entry.write_text(BACKPORTS.replace("bookworm-backports", "bookworm bookworm-updates"))
        self.program("id", "case $1 in -u) echo 0;; *) echo somebody;; esac")
        self.program("python3", f'exec {sys._base_executable} "$@"')  # type: ignore[attr-defined]  # typeshed lacks it
        self.program("apt-cache", "echo '  Candidate: 1:7.2+dfsg-7'")
        self.program("apt-config", f"echo \"directory='{self.sources}/'\"")
        self.program("virsh", "exit 0")
        self.program("qemu-system-x86_64", "exit 127")  # as where there is none
        self.apt_get(simulation=SIMULATED_INSTALLATION)

    def program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.calls_file}"\n{body}\n')
        path.chmod(0o755)

    def apt_get(self, simulation: str) -> None:
        """apt-get that knows one archive, offers *simulation*, and whose installation works."""
        entry = f"{self.sources}/debian.sources:1 http://mirror.example/debian/ bookworm"
        self.program(
            "apt-get",
            f"""case "$*" in
            *Codename:\\ bookworm-backports*) ;;
            indextargets*) echo "{entry}";;
            *--simulate*) cat <<'END'\n{simulation}\nEND\n;;
            install*) {self.programs}/installed;;
            esac""",
        )
        self.program(
            "installed",
            f"qemu={self.programs}/qemu-system-x86_64\n"
            "printf '#!/bin/sh\\necho QEMU emulator version 10.0.2\\n' >$qemu; chmod +x $qemu",
        )

    def has_qemu(self, version: str) -> None:
        self.program("qemu-system-x86_64", f"echo 'QEMU emulator version {version} (Debian)'")

    def install_missing_packages(self) -> subprocess.CompletedProcess[str]:
        script = "\n".join(
            [
                "set -euo pipefail",
                ". tools/setup/say.sh; . tools/setup/pythons.sh",
                ". tools/setup/packages.sh; . tools/setup/environments.sh",
                *self.stand_ins,
                "install_missing_packages",
            ]
        )
        return subprocess.run(
            [BASH, "-c", script],
            cwd=self.checkout,
            env={"PATH": f"{self.programs}:/usr/bin:/bin", "HOME": str(self.checkout)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls_of_apt(self) -> list[str]:
        """What was asked of apt that could change something, shortened to its verb and words."""
        calls = [
            line for line in self.calls_file.read_text().splitlines() if line.startswith("apt-get")
        ]
        return [
            "update"
            if "update" in call
            else "install" + call.partition("DPkg::Lock::Timeout=300")[2]
            for call in calls
            if "indextargets" not in call and "--simulate" not in call
        ]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("version", ["9.1.0", "9.2", "10.0.2", "11.0.50"])
def test_a_recent_qemu_and_a_python_with_venv_are_left_alone_in_silence(machine, version):
    machine.has_qemu(version)
    ended = machine.install_missing_packages()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert "apt" not in machine.calls_file.read_text()


@pytest.mark.parametrize("version", [None, "7.2.22", "9.0.4"])
def test_a_missing_or_old_qemu_comes_from_backports_after_saying_so(machine, version):
    if version:
        machine.has_qemu(version)
    ended = machine.install_missing_packages()
    assert ended.returncode == 0, ended.stderr
    assert machine.calls_of_apt == [
        "update",
        "update",
        "install -t bookworm-backports qemu-system-x86 qemu-utils",
    ]
    assert (machine.sources / "vmfleet-suspend-backports.sources").read_text() == BACKPORTS
    assert "saving with mapped-ram past the page cache needs QEMU 9.1" in ended.stdout
    assert "-t bookworm-backports qemu-system-x86 qemu-utils" in ended.stdout


def test_nothing_is_removed_recommended_or_asked_when_packages_are_installed(machine):
    machine.install_missing_packages()
    calls = machine.calls_file.read_text().splitlines()
    (installation,) = [
        c for c in calls if "install" in c and "apt-get" in c and "--simulate" not in c
    ]
    for option in ("--yes", "--no-remove", "--no-install-recommends"):
        assert option in installation


def test_a_recent_candidate_is_taken_from_the_distribution_itself(machine):
    machine.program("apt-cache", "echo '  Candidate: 1:10.0.2+ds-2'")
    assert machine.install_missing_packages().returncode == 0
    assert machine.calls_of_apt == ["update", "install qemu-system-x86 qemu-utils"]
    assert not list(machine.sources.glob("vmfleet*"))


def test_without_root_the_commands_are_printed_and_nothing_is_changed(machine):
    machine.program("id", "case $1 in -u) echo 1000;; *) echo somebody;; esac")
    ended = machine.install_missing_packages()
    assert ended.returncode != 0
    assert "this is somebody" in ended.stderr
    assert (
        f"cat >{machine.sources}/vmfleet-suspend-backports.sources <<'END'\n{BACKPORTS}END\n"
        in ended.stderr
    )
    assert "-t bookworm-backports qemu-system-x86 qemu-utils" in ended.stderr
    assert machine.calls_of_apt == []
    assert not list(machine.sources.glob("vmfleet*"))


def test_while_a_guest_runs_its_process_is_named_and_nothing_is_changed(machine, tmp_path):
    machine.stand_ins.remove("running_guests() { :; }")
    qemu = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "qemu-system-x86_64")
    with subprocess.Popen([qemu, "60"]) as guest:
        try:
            ended = machine.install_missing_packages()
        finally:
            guest.kill()
    assert ended.returncode != 0
    assert f"process {guest.pid}, {qemu}" in ended.stderr
    assert "apt-get install" in ended.stderr
    assert machine.calls_of_apt == []


def test_while_a_libvirt_domain_runs_it_is_named_and_nothing_is_changed(machine):
    machine.stand_ins.remove("running_guests() { :; }")
    machine.program("virsh", "echo web01")
    ended = machine.install_missing_packages()
    assert ended.returncode != 0
    assert "libvirt domain web01" in ended.stderr
    assert machine.calls_of_apt == []


@pytest.mark.parametrize(
    ("simulation", "words"),
    [
        ("Remv libvirt-daemon [9.0]\n" + SIMULATED_INSTALLATION, "remove packages"),
        (
            "Inst libc6 [2.36-9] (2.41-12 Debian [amd64])\n" + SIMULATED_INSTALLATION,
            "no part in this",
        ),
        ("Inst qemu-system-x86 (1:9.0.2+ds-1 Debian:12 [amd64])", "no recent enough version"),
    ],
)
def test_what_apt_would_do_beyond_the_purpose_is_refused_and_the_source_taken_back(
    machine, simulation, words
):
    machine.apt_get(simulation)
    ended = machine.install_missing_packages()
    assert ended.returncode != 0
    assert words in ended.stderr
    assert machine.calls_of_apt == ["update", "update", "update"]
    assert not list(machine.sources.glob("vmfleet*"))


def test_qemus_own_older_packages_may_be_exchanged(machine):
    machine.apt_get("Inst seabios [1.16.2-1] (1.16.3-2 Debian:12 [all])\n" + SIMULATED_INSTALLATION)
    ended = machine.install_missing_packages()
    assert ended.returncode == 0, ended.stderr
    assert "exchanges seabios 1.16.2-1 for 1.16.3-2" in ended.stdout


def test_an_ssh_server_that_is_installed_for_its_program_is_told_first_not_to_start(
    machine, tmp_path
):
    told = tmp_path / "ssh" / "sshd_not_to_be_run"
    sshd = tmp_path / "sshd"
    machine.stand_ins += [
        f"no_ssh_service() {{ echo {told}; }}",
        f"PACKAGES='openssh-server|7|test -e {sshd}|why'",
    ]
    machine.apt_get("Inst openssh-server (1:9.2p1-2 Debian:12 [amd64])")
    machine.program("installed", f"[ ! -e {told} ] || touch {sshd}")
    ended = machine.install_missing_packages()
    assert ended.returncode == 0, ended.stderr
    assert f"mkdir -p {told.parent} && touch {told}\n" in ended.stdout
    assert machine.calls_of_apt == ["update", "install openssh-server"]


def test_what_stays_unusable_after_the_installation_is_an_error(machine):
    machine.program("installed", "true")
    ended = machine.install_missing_packages()
    assert ended.returncode != 0
    assert "Installed, but still not usable" in ended.stderr


def test_no_least_version_has_an_epoch_since_those_of_candidates_are_ignored():
    text = (CHECKOUT / "tools" / "setup" / "packages.sh").read_text()
    rows = [line.split("|") for line in text.splitlines() if re.fullmatch(r"[a-z0-9-]+\|.*", line)]
    assert len(rows) >= 10
    assert [row[0] for row in rows if len(row) != 4 or ":" in row[1]] == []
