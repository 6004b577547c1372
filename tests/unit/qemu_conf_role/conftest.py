# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of the role qemu_conf, with a stand-in for the host's libvirt binding."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

_PROGRAMS = "ansible_collections.vmfleet.suspend.roles.qemu_conf.files.host"


class FakeLibvirt(ModuleType):
    """As much of the binding as the programs use; `refusal` is what opening raises."""

    VIR_ERR_NO_DOMAIN = 42
    VIR_ERR_OPERATION_INVALID = 55
    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    VIR_DOMAIN_JOB_NONE = 0

    class libvirtError(Exception):  # the binding's name
        pass

    def __init__(self) -> None:
        super().__init__("libvirt")
        self.refusal = ""
        self.opened: list[str] = []

    def registerErrorHandler(self, handler: object, context: object) -> None: ...

    def virEventRegisterDefaultImpl(self) -> None: ...

    def open(self, uri: str) -> FakeLibvirt:
        self.opened.append(uri)
        if self.refusal:
            raise self.libvirtError(self.refusal.format(root=uri.partition("root=")[2]))
        return self

    def close(self) -> None: ...


@pytest.fixture
def fake_libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    return fake


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, fake_libvirt: FakeLibvirt
) -> Callable[[str], ModuleType]:
    """Gives a program as a module."""

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, f"{_PROGRAMS}.{name}", raising=False)
        return importlib.import_module(f"{_PROGRAMS}.{name}")

    return load
