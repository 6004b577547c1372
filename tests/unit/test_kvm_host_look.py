# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role kvm_host asks a Python about itself, and what it wants of qemu.qmp."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
ROLE = CHECKOUT / "roles" / "kvm_host"


def look(python: str, place: Path | str = "/", cwd: Path | None = None) -> dict[str, object]:
    """What the program prints under ``python``, started in ``cwd``."""
    program = (ROLE / "files" / "host" / "look.py").read_text("utf-8")
    argv = [python, "-I", "-c", program, str(place)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=cwd)
    found: dict[str, object] = json.loads(said.stdout)
    return found


def test_an_environment_tells_what_it_was_made_for():
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = look(sys.executable)
    assert found["version"] == version
    assert found["environment"] == {"version": version, "sees_system": False}
    assert (found["venv"], found["pip"]) == (True, True)
    assert str(found["qmp"]).startswith("0.0.")


def test_a_python_of_its_own_is_in_no_environment():
    found = look(sys._base_executable)  # type: ignore[attr-defined]  # typeshed lacks it
    assert found["environment"] is None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was just made, with what qemu.qmp adds to it."""
    place = tmp_path_factory.mktemp("made") / "venv"
    venv.create(place, system_site_packages=True)
    (place / "bin" / "qmp-shell").touch()
    (place / "bin" / "pip3").touch()
    return place


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param("true", None, id="an environment"),
        pytest.param("rm pyvenv.cfg", None, id="an environment that lost its pyvenv.cfg"),
        pytest.param("rm -r bin", None, id="an environment half removed"),
        pytest.param("rm -r * ", None, id="an empty directory"),
        pytest.param("touch bin/tool", None, id="an environment with other programs"),
        pytest.param("mkdir src", "src", id="a project with its environment on top"),
        pytest.param("rm pyvenv.cfg; touch bin/tool", "bin/tool", id="another program's bin"),
        pytest.param("rm pyvenv.cfg; touch lib/libc.so", "lib/libc.so", id="another program's lib"),
        pytest.param("rm pyvenv.cfg; mkdir share", "share", id="another program's prefix"),
        pytest.param("rm -r *; touch .data", ".data", id="a hidden file"),
        pytest.param("rm -r *; touch lib", "lib", id="a file with the name of a directory"),
    ],
)
def test_what_would_be_lost_is_found(
    environment: Path, tmp_path: Path, change: str, found: str | None
) -> None:
    place = shutil.copytree(environment, tmp_path / "venv", symlinks=True)
    subprocess.run(["sh", "-ec", change], cwd=place, check=True)
    expected = None if found is None else str(place / found)
    assert look(sys.executable, place)["foreign"] == expected


def test_nothing_is_lost_where_nothing_is_and_a_file_would_be(tmp_path: Path) -> None:
    assert look(sys.executable, tmp_path / "none")["foreign"] is None
    (tmp_path / "file").touch()
    assert look(sys.executable, tmp_path / "file")["foreign"] == str(tmp_path / "file")


def test_a_directory_named_as_the_binding_is_no_binding(tmp_path: Path) -> None:
    """As libvirt's own sources would be, in root's home."""
    (tmp_path / "libvirt").mkdir()
    plain = tmp_path / "plain"
    venv.create(plain, system_site_packages=False)
    assert look(str(plain / "bin" / "python"), cwd=tmp_path)["libvirt"] is False


def test_the_role_wants_what_the_collection_wants():
    values = yaml.safe_load((ROLE / "vars" / "main.yml").read_text("utf-8"))
    wanted = f"qemu.qmp>={values['kvm_host_qmp_minimum']},<{values['kvm_host_qmp_below']}"
    assert wanted in (CHECKOUT / "requirements.txt").read_text("utf-8").splitlines()
