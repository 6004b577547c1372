# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Between Ansible and the use cases: shared arguments, dependency check, errors to fail_json."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._errors import Busy, Refused, VmfleetError
from ._libvirt._daemon import LIBVIRT_IMPORT_ERROR
from ._patience import patiently
from ._progress_file import progress_in
from ._qemu._monitor import QMP_IMPORT_ERROR, QMP_MINIMUM_VERSION
from ._qemu._secrets import hide_in
from ._syslog import logging

_Result = t.TypeVar("_Result")

TRANSFER_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    parallel_channels=dict(type="int"),
    bypass_cache=dict(type="bool"),
    timeout=dict(type="int", default=0),
)

PROGRESS_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    progress_file=dict(type="path"),
    show_progress=dict(type="bool", default=True),
)

DOMAIN_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    domain=dict(type="str"),
    uri=dict(type="str", default="qemu:///system"),
)

# A managed save is libvirt's own file.
REQUIRED_IF = [("managed", False, ["path"]), ("managed", True, ["domain"])]


def require_qmp(module: AnsibleModule) -> None:
    """Fail with the fix when the QMP library is missing from the module's Python."""
    if QMP_IMPORT_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib(
                f"qemu.qmp >= {QMP_MINIMUM_VERSION}",
                reason="to talk to QEMU. Install it with 'pip install qemu.qmp' into a virtual "
                "environment and set ansible_python_interpreter to its python",
            ),
            exception=QMP_IMPORT_ERROR,
        )


def require_libvirt(module: AnsibleModule) -> None:
    """Fail with the fix when the libvirt binding is missing from the module's Python."""
    if LIBVIRT_IMPORT_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib(
                "libvirt-python",
                reason="to talk to libvirt. Install the distribution's package (python3-libvirt) "
                "and set ansible_python_interpreter to a Python that sees it",
            ),
            exception=LIBVIRT_IMPORT_ERROR,
        )


def refuse_with_domain(params: t.Mapping[str, t.Any], **defaults: object) -> None:
    """Raise `Refused` naming every option that was given and does not go with option domain.

    ``defaults``: those options, each with its value when left out.
    """
    why = "libvirt runs the guest's QEMU, saves it and ends it by itself. Use qmp_socket, or"
    _refuse_with("domain", why, params, defaults)


def refuse_with_managed(params: t.Mapping[str, t.Any], **defaults: object) -> None:
    """As `refuse_with_domain`, for option managed."""
    why = "libvirt decides by its qemu.conf where and how it writes a managed save. Give a path, or"
    _refuse_with("managed", why, params, defaults)


def _refuse_with(
    option: str, why: str, params: t.Mapping[str, t.Any], defaults: t.Mapping[str, object]
) -> None:
    given = [other for other, left_out in defaults.items() if params[other] != left_out]
    if given:
        those = "that" if len(given) == 1 else "those"
        raise Refused(
            f"Option {option} does not go with {', '.join(given)}: {why} leave {those} out."
        )


def require_absolute(**paths: str | None) -> None:
    """Raise `Refused` naming the first option whose path is not absolute."""
    for option, path in paths.items():
        if path is not None and not os.path.isabs(path):
            raise Refused(f"Option {option} must be an absolute path on the host: {path!r}.")


def require_path(path: str | None) -> None:
    """Raise `Refused` for a path that was given as null, which an argument spec lets through."""
    if path is None:
        raise Refused("Option path is needed, but with managed.")


def require_timeout(seconds: int) -> None:
    """Raise `Refused` for a negative timeout."""
    if seconds < 0:
        raise Refused(f"Option timeout must not be negative: {seconds}.")


@contextlib.contextmanager
def told(module: AnsibleModule) -> t.Iterator[None]:
    """What use cases tell meanwhile goes to the host's log and to the controller."""
    with logging(), progress_in(module.params["progress_file"]):
        yield


async def in_turn(
    module: AnsibleModule, work: t.Callable[[], t.Coroutine[t.Any, t.Any, _Result]], subject: str
) -> _Result:
    """Do ``work`` once no other run is at it; check mode waits for nobody."""
    if module.check_mode:
        return await work()
    return await patiently(work, subject, module.params["timeout"])


def fail(module: AnsibleModule, error: VmfleetError | OSError) -> t.NoReturn:
    """End the module with everything the error knows, but no secrets."""
    facts: dict[str, t.Any] = {"changed": False, "actions": []}
    message = str(error)
    if isinstance(error, VmfleetError):
        facts.update(error.facts)
        if isinstance(error, Busy):
            facts["busy"] = True
        message = error.message
    module.fail_json(**_without_secrets({"msg": message, **facts}))
    raise AssertionError("fail_json returned")


def _without_secrets(value: t.Any) -> t.Any:
    if isinstance(value, str):
        return hide_in(value)
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    return value
