# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between Ansible and the use cases: options, errors."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _ansible
from ansible_collections.vmfleet.suspend.plugins.module_utils._ansible import (
    fail,
    require_absolute,
    require_qmp,
    require_timeout,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    QmpCommandError,
    Refused,
    VmfleetError,
)


class Module:
    """Stands in for AnsibleModule: fail_json ends the run."""

    def __init__(self) -> None:
        self.failed: dict[str, t.Any] = {}

    def fail_json(self, **result: t.Any) -> t.NoReturn:
        self.failed = result
        raise SystemExit(1)


# Options.


@pytest.mark.parametrize("path", ["/", "/run/qmp", None])
def test_an_absolute_path_or_none_is_taken(path):
    require_absolute(qmp_socket=path)


@pytest.mark.parametrize("path", ["", "qmp", "./qmp", "~/qmp"])
def test_another_path_is_refused_with_the_option_and_its_value(path):
    with pytest.raises(Refused, match="Option qmp_socket") as refused:
        require_absolute(path="/store/x.save", qmp_socket=path)
    assert repr(path) in refused.value.message


def test_a_negative_timeout_is_refused_and_zero_means_none():
    require_timeout(0)
    with pytest.raises(Refused, match="Option timeout must not be negative: -1"):
        require_timeout(-1)


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    module = Module()
    monkeypatch.setattr(_ansible, "QMP_IMPORT_ERROR", "Traceback: No module named 'qemu'")
    with pytest.raises(SystemExit):
        require_qmp(module)
    assert "pip install qemu.qmp" in module.failed["msg"]
    assert "No module named" in module.failed["exception"]


# Errors.


def test_an_error_ends_the_module_with_everything_that_it_knows():
    module = Module()
    with pytest.raises(SystemExit):
        fail(module, QmpCommandError("migrate", "GenericError", "State blocked"))
    assert module.failed == {
        "msg": "QEMU refused migrate: State blocked",
        "changed": False,
        "actions": [],
        "qmp_command": "migrate",
        "qmp_error_class": "GenericError",
        "qmp_error": "State blocked",
    }


def test_an_error_after_something_was_changed_says_so():
    module = Module()
    with pytest.raises(SystemExit):
        fail(module, VmfleetError("Half done.", changed=True, actions=["published"]))
    assert (module.failed["changed"], module.failed["actions"]) == (True, ["published"])


def test_an_error_of_the_operating_system_is_told_too():
    module = Module()
    with pytest.raises(SystemExit):
        fail(module, PermissionError(13, "Permission denied", "/store"))
    assert module.failed["msg"] == "[Errno 13] Permission denied: '/store'"


def test_a_secret_in_the_words_of_qemu_or_libvirt_is_not_told():
    said = "-object secret,id=s0,data=hunter2hunter2: Duplicate ID 's0' for object"
    module = Module()
    with pytest.raises(SystemExit):
        fail(
            module,
            VmfleetError(
                f"Restoring failed: {said}",
                qmp_error=said,
                actions=[f"tried: {said}"],
                guest={"state": "absent", "said": said},
            ),
        )
    assert "hunter2" not in str(module.failed)
    assert str(module.failed).count("Duplicate ID 's0'") == 4
