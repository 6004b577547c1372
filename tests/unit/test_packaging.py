# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts that stand in two places of the packaging agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._monitor import (
    QMP_MINIMUM_VERSION,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._version import COLLECTION_VERSION

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.md"
ROLES = sorted((CHECKOUT / "roles").iterdir())


def load(name):
    return yaml.safe_load((CHECKOUT / name).read_text())


def test_the_code_and_galaxy_yml_name_the_same_version():
    assert load("galaxy.yml")["version"] == COLLECTION_VERSION


def test_the_action_group_holds_every_module():
    modules = sorted(path.stem for path in (CHECKOUT / "plugins" / "modules").glob("[!_]*.py"))
    assert sorted(load("meta/runtime.yml")["action_groups"]["qemu"]) == modules


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_defaults_are_those_of_its_argument_specs(role):
    name = role.relative_to(CHECKOUT)
    points = load(name / "meta" / "argument_specs.yml")["argument_specs"].values()
    options = {key: option for point in points for key, option in point["options"].items()}
    documented = {key: option["default"] for key, option in options.items() if "default" in option}
    # What depends on other variables is described in words.
    defaults = load(name / "defaults" / "main.yml")
    assert {key: value for key, value in defaults.items() if "{{" not in str(value)} == documented


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_is_described_and_has_a_scenario(role):
    assert f"vmfleet.suspend.{role.name}`](roles/{role.name}/README.md)" in README.read_text()
    assert (role / "README.md").is_file()
    scenarios = (CHECKOUT / "extensions" / "molecule").glob("*/converge.yml")
    assert any(f"vmfleet.suspend.{role.name}" in path.read_text() for path in scenarios)


def test_requirements_and_the_modules_ask_for_the_same_qemu_qmp():
    assert f"qemu.qmp>={QMP_MINIMUM_VERSION}," in (CHECKOUT / "requirements.txt").read_text()
