# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the set-up commands read apt sources, find Pythons and key environments."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "/bin/bash"

KEY_BLOCK = """\
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINB
 -----END PGP PUBLIC KEY BLOCK-----
"""
TWO_STANZAS = f"""\
# the archive's security part
Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
# written by hand
URIs: http://other.example/debian http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Architectures: amd64
{KEY_BLOCK}"""


def output_of(call: str, **environment: str) -> str:
    """The output of one function of the set-up scripts."""
    scripts = "; ".join(
        f". tools/setup/{name}.sh" for name in ("say", "pythons", "packages", "environments")
    )
    ended = subprocess.run(
        [BASH, "-c", f"set -euo pipefail; {scripts}; {call}"],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout


@pytest.mark.parametrize(
    ("name", "text", "entry_number", "copied"),
    [
        (
            "debian.sources",
            TWO_STANZAS,
            2,
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm-backports\n"
            f"Components: main\nArchitectures: amd64\n{KEY_BLOCK}",
        ),
        (
            "debian.sources",
            TWO_STANZAS.replace("Types: deb deb-src", "Enabled: no\nTypes: deb")
            + "\n"
            + TWO_STANZAS,
            4,
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm-backports\n"
            f"Components: main\nArchitectures: amd64\n{KEY_BLOCK}",
        ),
        (
            "sources.list",
            "# deb http://old.example/debian bookworm main\n\n"
            "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # ours\n",
            3,
            "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm-backports main\n",
        ),
        (
            "sources.list",
            "deb http://mirror.example/debian bookworm main\n",
            1,
            "deb http://mirror.example/debian bookworm-backports main\n",
        ),
    ],
    ids=[
        "stanza with an embedded key",
        "stanza that is switched off",
        "line with options",
        "plain line",
    ],
)
def test_a_source_is_copied_for_backports_with_all_that_was_said_about_it(
    tmp_path, name, text, entry_number, copied
):
    file = tmp_path / name
    file.write_text(text)
    entry = f"{file}:{entry_number} http://mirror.example/debian/ bookworm"
    assert output_of(f"same_source_other_suite '{entry}' bookworm-backports") == copied


def fake_python(
    directory: Path, name: str, version: str, *, starts: bool = True, has_venv: bool = True
) -> None:
    """A program that answers the two questions which the scripts ask a Python."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(
        "#!/bin/sh\n"
        f'[ {int(starts)} = 1 ] || {{ echo "pyenv: {name}: command not found" >&2; exit 127; }}\n'
        f'case "$*" in *ensurepip*) exit {int(not has_venv)};; *) echo "{version} $0";; esac\n'
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ([("python3.11", {}), ("python3.12", {}), ("python3.13", {})], "python3.12"),
        ([("python3.11", {}), ("python3.12", {"starts": False}), ("python3.13", {})], "python3.13"),
        ([("python3.11", {}), ("python3.12", {"has_venv": False})], "python3.11"),
        ([("python3.10", {}), ("python3.11", {})], "python3.11"),
    ],
    ids=[
        "the best known",
        "a broken shim is passed over",
        "no venv is passed over",
        "too old is passed over",
    ],
)
def test_the_environments_python_is_one_that_really_works(tmp_path, pythons, chosen):
    directory = tmp_path / "with a space"
    for name, kind in pythons:
        fake_python(directory, name, name.removeprefix("python"), **kind)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "awk").symlink_to("/usr/bin/awk")
    found = output_of("find_controller_python", PATH=f"{directory}:{tools}")
    assert found == f"{directory / chosen}\n"


def test_pythons_of_a_version_manager_are_found_without_its_shims(tmp_path):
    fake_python_directory = tmp_path / "versions" / "3.12.1" / "bin"
    fake_python_directory.mkdir(parents=True)
    fake_python(fake_python_directory, "python", "3.12")
    found = output_of("find_controller_python", PYENV_ROOT=str(tmp_path))
    assert found == f"{fake_python_directory / 'python'}\n"


def test_an_environment_is_stale_when_its_list_or_its_place_changed(tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("pytest==9.2.0\n")
    key = output_of(f"environment_key '{lock}'")
    assert key == output_of(f"environment_key '{lock}'")
    assert key != output_of(f"cd tests; environment_key '{lock}'")
    lock.write_text("pytest==9.2.1\n")
    assert key != output_of(f"environment_key '{lock}'")
