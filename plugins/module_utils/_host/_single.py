# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The single-guest use cases, whichever way the guest is reached."""

from __future__ import annotations

from .._errors import Refused
from .._libvirt._daemon import LIBVIRT_IMPORT_ERROR
from .._qemu._monitor import QMP_IMPORT_ERROR
from .._restore._domain_request import DomainRestoreRequest, ManagedRestoreRequest
from .._restore._domain_run import restore_domain
from .._restore._managed_run import restore_managed
from .._restore._outcome import RestoreOutcome
from .._restore._request import RestoreRequest
from .._restore._run import restore
from .._save._domain_request import DomainSaveRequest, ManagedSaveRequest
from .._save._domain_run import save_domain
from .._save._managed_run import save_managed
from .._save._outcome import SaveOutcome
from .._save._request import SaveRequest
from .._save._run import save
from ._requests import AnyRestore, AnySave


def _require(request: AnySave | AnyRestore) -> None:
    """Raise `Refused` where the library that reaches this guest is missing."""
    over_qmp = isinstance(request, (SaveRequest, RestoreRequest))
    missing = QMP_IMPORT_ERROR if over_qmp else LIBVIRT_IMPORT_ERROR
    if missing is not None:
        library = "qemu.qmp" if over_qmp else "libvirt-python"
        raise Refused(
            f"The Python library {library} is missing here, and this guest cannot be reached "
            "without it. Run the module in a Python that has it (ansible_python_interpreter)."
        )


async def save_one(request: AnySave, *, check_mode: bool) -> SaveOutcome:
    """Save a guest. Raises as `save`, `save_domain`, `save_managed`."""
    _require(request)
    if isinstance(request, ManagedSaveRequest):
        return await save_managed(request, check_mode=check_mode)
    if isinstance(request, DomainSaveRequest):
        return await save_domain(request, check_mode=check_mode)
    return await save(request, check_mode=check_mode)


async def restore_one(request: AnyRestore, *, check_mode: bool) -> RestoreOutcome:
    """Bring a guest back. Raises as `restore`, `restore_domain`, `restore_managed`."""
    _require(request)
    if isinstance(request, ManagedRestoreRequest):
        return await restore_managed(request, check_mode=check_mode)
    if isinstance(request, DomainRestoreRequest):
        return await restore_domain(request, check_mode=check_mode)
    return await restore(request, check_mode=check_mode)
