# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the use cases of a whole host as the modules do."""

from __future__ import annotations

import asyncio
import typing as t
from pathlib import Path

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    GUEST_ARGUMENTS,
    RESUME_ARGUMENTS,
    SUSPEND_ARGUMENTS,
    resume_request,
    suspend_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._resume import resume
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import suspend
from ansible_collections.vmfleet.suspend.plugins.module_utils._interruptible import interruptible
from ansible_collections.vmfleet.suspend.tests.support.drive import Result

Spec = t.Mapping[str, t.Mapping[str, t.Any]]


def _params(spec: Spec, options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What Ansible makes of options: every one is there."""
    unknown = set(options) - set(spec)
    assert not unknown, unknown
    return {**{name: entry.get("default") for name, entry in spec.items()}, **options}


class Host:
    """The guests of a test as one host, with a store and a journal of its own.

    ``options`` go with every suspend, such as the globs of its guests' sockets.
    """

    def __init__(self, directory: Path, **options: t.Any) -> None:
        self.store = directory / "store"
        self.journal = directory / "journal"
        self.store.mkdir(mode=0o700, exist_ok=True)
        self._options = {"qemu_conf": "/nonexistent/qemu.conf", **options}

    def suspend(
        self, *, check_mode: bool = False, signals: bool = False, **options: t.Any
    ) -> Result:
        """What qemu_host_suspend returns; errors come as they are raised."""
        request = suspend_request(self.suspend_params(**options))
        return _run(suspend(request, check_mode=check_mode), signals)

    def resume(
        self, *, check_mode: bool = False, signals: bool = False, **options: t.Any
    ) -> Result:
        """What qemu_host_resume returns; errors come as they are raised."""
        request = resume_request(self.resume_params(**options))
        return _run(resume(request, check_mode=check_mode), signals)

    def suspend_params(self, **options: t.Any) -> dict[str, t.Any]:
        """Options of qemu_host_suspend, all of them."""
        return self._complete(SUSPEND_ARGUMENTS, {**self._options, **options})

    def resume_params(self, **options: t.Any) -> dict[str, t.Any]:
        """Options of qemu_host_resume, all of them."""
        return self._complete(RESUME_ARGUMENTS, options)

    def _complete(self, spec: Spec, options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        own = {"store": str(self.store), "journal": str(self.journal)}
        params = _params(spec, {**own, **options})
        params["guests"] = [_params(GUEST_ARGUMENTS, guest) for guest in params["guests"]]
        return params


def _run(work: t.Coroutine[t.Any, t.Any, t.Any], signals: bool) -> Result:
    return t.cast(Result, asyncio.run(interruptible(work) if signals else work).as_result())


def by_name(result: Result) -> dict[str, Result]:
    """Guests of a result."""
    return {guest["name"]: guest for guest in result["guests"]}
