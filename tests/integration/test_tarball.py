# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as a user installs it: from its tarball, without this checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_demo_runs_from_the_tarball_in_an_empty_collections_path(tmp_path):
    galaxy = ["ansible-galaxy", "collection"]
    subprocess.run([*galaxy, "build", "--output-path", tmp_path, CHECKOUT], check=True)
    (tarball,) = tmp_path.glob("vmfleet-suspend-*.tar.gz")
    collections = tmp_path / "collections"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    install = [*galaxy, "install", "--offline", "-p", collections, tarball]
    subprocess.run(install, check=True, env=environment)
    small = ["demo_memory_mib=64", "demo_pattern_mib=16", f"demo_directory={tmp_path}"]
    done = subprocess.run(
        [
            *("ansible-playbook", "vmfleet.suspend.demo"),
            *(word for variable in small for word in ("-e", variable)),
        ],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory verified by the guest" in done.stdout
    assert "0 mismatches" in done.stdout
    assert list(tmp_path.glob("vmfleet-demo.*")) == []
