# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's rules for settings, held against an installed QEMU.

What the host's kernel or build decides as well (postcopy, COLO, dirty-limit) is left out.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import typing as t
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.tests.support.migration_rules import MigrationSettings
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import CAPABILITIES, PARAMETERS
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import QmpFailure

QEMU = "qemu-system-x86_64"
MODELLED_MAJOR = 10

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason="compares with a real QEMU")


class RealQemu:
    """A QEMU without a machine, asked over an inherited socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        chardev = f"socket,id=m,fd={fd}"
        argv = [QEMU, "-machine", "none", "-display", "none", "-nodefaults"]
        argv += ["-chardev", chardev, "-mon", "chardev=m,mode=control"]
        self._process = subprocess.Popen(argv, pass_fds=[fd], stderr=subprocess.DEVNULL)
        theirs.close()
        self._socket = ours
        self._stream = ours.makefile("rb")
        self.version = json.loads(self._stream.readline())["QMP"]["version"]["qemu"]
        self("qmp_capabilities")

    def __call__(self, command: str, arguments: object = None) -> dict[str, t.Any]:
        request = {"execute": command, "arguments": arguments or {}}
        self._socket.sendall(json.dumps(request).encode())
        while True:
            reply: dict[str, t.Any] = json.loads(self._stream.readline())
            if "event" not in reply:
                return reply

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stream.close()
        self._socket.close()


@pytest.fixture(scope="module")
def qemu() -> t.Iterator[RealQemu]:
    running = RealQemu()
    try:
        if running.version["major"] != MODELLED_MAJOR:
            pytest.skip(f"models QEMU {MODELLED_MAJOR}, installed is {running.version}")
        yield running
    finally:
        running.close()


MODELLED = sorted(set(CAPABILITIES) - {"postcopy-ram", "postcopy-preempt", "x-colo", "dirty-limit"})
capability_changes = st.dictionaries(st.sampled_from(MODELLED), st.booleans(), min_size=1)
parameter_changes = st.fixed_dictionaries(
    {},
    optional={
        "multifd-compression": st.sampled_from(["none", "zlib"]),
        "tls-creds": st.sampled_from(["", "tls0"]),
        "direct-io": st.booleans(),
        "multifd-channels": st.integers(0, 255),
        "max-bandwidth": st.integers(0, 1 << 40),
        "zero-page-detection": st.sampled_from(["none", "legacy", "multifd"]),
    },
)


def test_the_model_offers_what_qemu_offers(qemu: RealQemu) -> None:
    offered = {e["capability"]: e["state"] for e in qemu("query-migrate-capabilities")["return"]}
    assert offered == CAPABILITIES
    parameters = qemu("query-migrate-parameters")["return"]
    # Builds differ in compressors, and so in their levels.
    assert {k: v for k, v in parameters.items() if not k.endswith("-level")} == {
        k: v for k, v in PARAMETERS.items() if not k.endswith("-level")
    }


@settings(max_examples=60)
@given(changes=st.lists(st.one_of(capability_changes, parameter_changes), max_size=8))
def test_the_model_accepts_and_refuses_what_qemu_does(
    qemu: RealQemu, changes: list[dict[str, t.Any]]
) -> None:
    all_off = [{"capability": name, "state": False} for name in CAPABILITIES]
    qemu("migrate-set-capabilities", {"capabilities": all_off})
    levels = {name for name in PARAMETERS if name.endswith("-level")}
    defaults = {name: value for name, value in PARAMETERS.items() if name not in levels}
    assert "return" in qemu("migrate-set-parameters", defaults)
    model = MigrationSettings(dict(CAPABILITIES), dict(PARAMETERS))
    for change in changes:
        if set(change) <= set(CAPABILITIES):
            entries = [{"capability": name, "state": on} for name, on in change.items()]
            reply = qemu("migrate-set-capabilities", {"capabilities": entries})
            expected = _refusal(partial(model.set_capabilities, entries))
        else:
            reply = qemu("migrate-set-parameters", change)
            expected = _refusal(partial(model.set_parameters, change))
        said = reply.get("error", {}).get("desc")
        assert (said is None) == (expected is None), (change, said, expected)
    states = {e["capability"]: e["state"] for e in qemu("query-migrate-capabilities")["return"]}
    assert states == model.capabilities
    parameters = qemu("query-migrate-parameters")["return"]
    assert {name: parameters[name] for name in defaults} == {
        name: model.parameters[name] for name in defaults
    }


def _refusal(change: t.Callable[[], None]) -> str | None:
    try:
        change()
    except QmpFailure as exc:
        return exc.description
    return None
