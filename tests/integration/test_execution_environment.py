# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution environment with the collection, as far as ansible-builder makes it offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
DEFINITION = CHECKOUT / "docs" / "execution-environment" / "execution-environment.yml"
BUILDER = Path(sys.executable).parent / "ansible-builder"


def introspected(collections):
    """What ansible-builder would install for the collections that lie there."""
    command = [BUILDER, "introspect", collections]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return yaml.safe_load(done.stdout)


def test_the_collection_asks_for_nothing_on_the_controller(tmp_path):
    collection = tmp_path / "ansible_collections" / "vmfleet" / "suspend"
    collection.mkdir(parents=True)
    for name in ("galaxy.yml", "requirements.txt", "bindep.txt"):
        (collection / name).symlink_to(CHECKOUT / name)
    (requirement,) = introspected(tmp_path)["python"]
    assert "qemu.qmp" in requirement  # what it takes for the controller's, and is the hosts'
    (collection / "meta").symlink_to(CHECKOUT / "meta")
    assert introspected(tmp_path) == {"python": [], "system": []}


def test_ansible_builder_accepts_the_definition(tmp_path):
    context = tmp_path / "context"
    subprocess.run(
        [BUILDER, "create", "--file", DEFINITION, "--context", context],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    wanted = yaml.safe_load((context / "_build" / "requirements.yml").read_text())
    assert wanted == {"collections": [{"name": "vmfleet.suspend"}]}
    assert (context / "_build" / "bindep.txt").read_text().split() == ["openssh-clients"]
    (containerfile,) = context.glob("*file")
    steps = containerfile.read_text()
    assert "ansible-galaxy collection install" in steps
    base = yaml.safe_load(DEFINITION.read_text())["images"]["base_image"]["name"]
    assert f'EE_BASE_IMAGE="{base}"' in steps
