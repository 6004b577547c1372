# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image that is there already means for a save."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save._target import (
    already_saved,
    is_same_guest,
    replace_refusal,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_QEMU,
    OTHER_UUID,
    SOCKET,
    THIS_QEMU,
    UUID,
    a_guest,
    an_image,
)


@pytest.mark.parametrize(
    ("image", "guest_uuid", "same"),
    [
        ({}, UUID, True),
        ({"uuid": OTHER_UUID}, UUID, False),
        # Without a UUID only the very process proves anything; a name never does.
        ({"uuid": None, "saved_from": THIS_QEMU}, None, True),
        ({"uuid": None, "saved_from": OTHER_QEMU, "loaded_into": THIS_QEMU}, None, True),
        ({"uuid": None, "saved_from": OTHER_QEMU}, None, False),
        ({"uuid": None, "saved_from": None}, None, False),
    ],
)
def test_same_guest_is_told_by_uuid_else_by_its_process(image, guest_uuid, same):
    assert is_same_guest(an_image(**image), a_guest(uuid=guest_uuid), guest_uuid) is same


@pytest.mark.parametrize(
    ("image", "guest", "refused_because"),
    [
        ({}, {"run_state": "running"}, None),
        ({"state": "spent"}, {"run_state": "running"}, None),
        ({"state": "spent"}, {"run_state": "paused"}, None),
        ({}, {"run_state": "paused"}, None),
        ({"loaded_into": THIS_QEMU}, {"run_state": "paused"}, "has not run since"),
        ({"loaded_into": OTHER_QEMU}, {"run_state": "paused"}, None),
        ({}, {"run_state": "prelaunch"}, "has not run since"),
        ({"state": "partial"}, {"run_state": "running"}, "never finished"),
        ({"uuid": OTHER_UUID}, {}, "not this guest"),
        ({"uuid": OTHER_UUID, "state": "spent"}, {}, "not this guest"),
    ],
)
def test_an_image_is_replaced_only_when_it_is_this_guests_and_of_no_more_use(
    image, guest, refused_because
):
    refusal = replace_refusal(an_image(**image), a_guest(**guest), UUID, IMAGE)
    if refused_because is None:
        assert refusal is None
    else:
        assert refusal is not None and refused_because in refusal


@pytest.mark.parametrize(
    ("image", "uuid", "done", "reason"),
    [
        ({}, None, True, "saved into this image"),
        ({}, UUID.upper(), True, "saved into this image"),
        ({}, OTHER_UUID, False, UUID),
        ({"state": "spent"}, None, False, "is spent"),
        ({"state": "partial"}, None, False, "is partial"),
        ({"qmp_socket": "/run/other.qmp"}, None, False, "/run/other.qmp"),
        ({"qmp_socket": None}, None, False, "not recorded"),
        ({"quit_by_save": False}, None, True, "saved into this image"),
        ({"quit_by_save": False, "meant_to_quit": False}, None, False, "not asked to end"),
    ],
)
def test_a_guest_that_is_gone_counts_as_saved_only_with_every_proof(image, uuid, done, reason):
    result, words = already_saved(IMAGE, SOCKET, uuid, an_image(**image), False)
    assert result is done
    assert reason in words


def test_a_guest_that_is_gone_without_an_image_was_not_saved():
    gone = (False, f"there is no image at {IMAGE}")
    assert already_saved(IMAGE, SOCKET, None, None, False) == gone


def test_a_guest_whose_qemu_lives_without_its_monitor_does_not_count_as_saved():
    done, words = already_saved(IMAGE, SOCKET, None, an_image(), True)
    assert not done
    assert f"still lives, as process {THIS_QEMU.pid}" in words
