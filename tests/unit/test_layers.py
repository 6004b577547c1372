# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rule of dependency is enforced: the checker passes on the tree and fires on every breach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy_of_plugins(tmp_path):
    """The collection's plugins and the checker's configuration, to break at will."""
    home = tmp_path / "ansible_collections" / "vmfleet" / "suspend"
    shutil.copytree(CHECKOUT / "plugins", home / "plugins")
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return home / "plugins"


def check_layers(plugins: Path) -> subprocess.CompletedProcess[str]:
    top = plugins.parents[3]
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(top)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_tree_as_it_is_keeps_every_rule(copy_of_plugins):
    ended = check_layers(copy_of_plugins)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("file", "forbidden_import", "rule"),
    [
        ("_qemu/_deadline.py", "from .._saveimage import _header", "the layers"),
        ("_saveimage/_header.py", "from .._qemu import _monitor", "the layers"),
        ("_libvirt/_qemu_conf.py", "from .._saveimage import _header", "the layers"),
        ("_saveimage/_header.py", "from .. import _image_record", "the layers"),
        ("_errors.py", "from ._saveimage import _header", "the layers"),
        ("_save/_run.py", "from .. import _ansible", "the layers"),
        ("_new_file.py", "import os", "the layers"),
        ("_qemu/_fdset.py", "import qemu.qmp", "only _qemu._monitor"),
        (
            "_libvirt/_qemu_conf.py",
            "import libvirt",
            "only _libvirt._daemon imports libvirt-python",
        ),
        (
            "_errors.py",
            "from ansible.module_utils.basic import env_fallback",
            "only _ansible knows",
        ),
        (
            "_errors.py",
            "from ansible_collections.vmfleet.suspend.plugins.modules import qemu_save",
            "modules stand above",
        ),
    ],
)
def test_a_forbidden_import_breaks_its_rule(copy_of_plugins, file, forbidden_import, rule):
    changed = copy_of_plugins / "module_utils" / file
    text = changed.read_text() if changed.exists() else ""
    changed.write_text(f"{text}\n{forbidden_import}\n")
    ended = check_layers(copy_of_plugins)
    assert ended.returncode != 0
    assert any(rule in line and "BROKEN" in line for line in ended.stdout.splitlines()), (
        ended.stdout
    )
