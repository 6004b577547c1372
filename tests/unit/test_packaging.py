# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts that stand in two places of the packaging agree."""

from __future__ import annotations

from pathlib import Path

import yaml

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import (
    QMP_MINIMUM_VERSION,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._version import COLLECTION_VERSION

CHECKOUT = Path(__file__).resolve().parents[2]


def load(name):
    return yaml.safe_load((CHECKOUT / name).read_text())


def test_the_code_and_galaxy_yml_name_the_same_version():
    assert load("galaxy.yml")["version"] == COLLECTION_VERSION


def test_the_action_group_holds_every_module():
    modules = sorted(path.stem for path in (CHECKOUT / "plugins" / "modules").glob("[!_]*.py"))
    assert sorted(load("meta/runtime.yml")["action_groups"]["qemu"]) == modules


def test_the_files_for_execution_environments_exist():
    for name in load("meta/execution-environment.yml")["dependencies"].values():
        assert (CHECKOUT / name).is_file()


def test_requirements_and_the_modules_ask_for_the_same_qemu_qmp():
    assert f"qemu.qmp>={QMP_MINIMUM_VERSION}," in (CHECKOUT / "requirements.txt").read_text()
