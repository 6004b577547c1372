# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore decides from the image and the QEMU it finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._ram_blocks import LiveRamBlock
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._plan import (
    check_image,
    decide_for_live_guest,
    plan_load,
    plan_without_qemu,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_QEMU,
    OTHER_UUID,
    SOCKET,
    THIS_QEMU,
    a_guest,
    an_image,
)


def a_request(**options):
    return RestoreRequest(path=IMAGE, qmp_socket=SOCKET, **options)


def waiting(**changes):
    return a_guest(**{"run_state": "inmigrate", **changes})


def ram(name, used, total=None):
    return LiveRamBlock(name, 4096, used, total or used, 0x1000)


@pytest.mark.parametrize(
    ("image", "allow", "words"),
    [
        ({"state": "partial"}, (), "partial"),
        ({"state": "partial"}, ("spent",), "partial"),
        ({"state": "spent"}, (), "spent"),
    ],
)
def test_an_image_that_must_not_be_restored_is_refused(image, allow, words):
    with pytest.raises(Refused, match=words):
        check_image(an_image(**image), a_request(allow=frozenset(allow)))


def test_a_spent_image_is_restored_only_by_name_and_with_a_warning():
    warnings = check_image(an_image(state="spent"), a_request(allow=frozenset({"spent"})))
    assert "rolled back" in warnings[0]


@pytest.mark.parametrize(
    ("image", "guest", "run_state", "decision"),
    [
        ({"state": "spent", "loaded_into": THIS_QEMU}, {}, "as_saved", "unchanged"),
        ({"state": "spent"}, {}, "as_saved", "unchanged"),
        ({"loaded_into": THIS_QEMU}, {"run_state": "paused"}, "as_saved", "continue"),
        (
            {"state": "spent", "loaded_into": THIS_QEMU},
            {"run_state": "paused"},
            "as_saved",
            "continue",
        ),
        ({"loaded_into": THIS_QEMU}, {"run_state": "paused"}, "paused", "unchanged"),
        (
            {"loaded_into": THIS_QEMU, "was_running": False},
            {"run_state": "paused"},
            "as_saved",
            "unchanged",
        ),
    ],
)
def test_a_guest_that_was_restored_before_is_recognised(image, guest, run_state, decision):
    request = a_request(run_state=run_state)
    assert decide_for_live_guest(an_image(**image), a_guest(**guest), request) == decision


@pytest.mark.parametrize(
    ("image", "guest", "words"),
    [
        ({}, {}, "started elsewhere"),
        ({"uuid": OTHER_UUID}, {}, "not waiting"),
        ({"uuid": None}, {"uuid": None}, "not waiting"),
        ({"state": "spent", "loaded_into": OTHER_QEMU}, {}, "not waiting"),
        (
            {"state": "spent", "loaded_into": THIS_QEMU, "continued": True},
            {"run_state": "paused"},
            "stopped it",
        ),
    ],
)
def test_a_live_guest_that_is_not_the_restored_one_is_refused(image, guest, words):
    with pytest.raises(Refused, match=words):
        decide_for_live_guest(an_image(**image), a_guest(**guest), a_request())


def load_plan(image=None, guest=None, request=None, **facts):
    return plan_load(
        image or an_image(),
        guest or waiting(),
        request or a_request(),
        **{
            "launch": None,
            "checks": (),
            "cpu_count": 2,
            "direct_io_proved": None,
            "stale_backends": (),
            **facts,
        },
    )


@pytest.mark.parametrize(
    ("was_running", "run_state", "runs"),
    [
        (True, "as_saved", True),
        (False, "as_saved", False),
        (False, "running", True),
        (True, "paused", False),
    ],
)
def test_the_guest_runs_afterwards_as_saved_or_as_asked(was_running, run_state, runs):
    plan = load_plan(an_image(was_running=was_running), request=a_request(run_state=run_state))
    assert plan.run_afterwards is runs


def test_reused_memory_is_refused_for_mapped_ram_and_harmless_for_a_sequential_stream():
    stale = ("Memory backend pc.ram uses /dev/shm/ram, and it holds data from offset 0 on.",)
    with pytest.raises(Refused, match="/dev/shm/ram"):
        load_plan(stale_backends=stale)
    assert load_plan(an_image(layout="sequential"), stale_backends=stale).action == "restore"


def test_all_differences_are_told_at_once():
    guest = waiting(machine_type="pc-i440fx-10.0", uuid=OTHER_UUID)
    with pytest.raises(Refused) as refused:
        load_plan(guest=guest)
    assert "pc-i440fx-10.0" in refused.value.message
    assert OTHER_UUID in refused.value.message


def test_a_qemu_that_does_not_wait_cannot_be_loaded_into():
    with pytest.raises(Refused, match="not waiting"):
        load_plan(guest=replace(waiting(), run_state="running"))


def test_without_a_qemu_the_plan_says_unknown_for_what_only_a_qemu_can_tell():
    plan = plan_without_qemu(an_image(), a_request(), launch="recorded").as_dict()
    assert plan["parallel_channels"] == plan["bypass_cache"] == plan["same_guest"] == "unknown"
    assert plan["start_qemu"] is True
