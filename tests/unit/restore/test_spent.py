# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run says of an image that is spent: how it came to be so."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import (
    SPENT_FOR_INSPECTION,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._spent import why_spent
from ansible_collections.vmfleet.suspend.tests.support.values import OTHER_QEMU, an_image

NO, YES = False, True
CHANGED = ("/d/a: size_bytes was 1, is 2",)


@pytest.mark.parametrize(
    ("image", "holder_lives", "changed", "words"),
    [
        ({"spent_by": SPENT_FOR_INSPECTION}, NO, (), "save with guest_state running"),
        ({}, NO, (), "not recorded"),
        ({"loaded_into": OTHER_QEMU}, YES, (), "process 4712, which holds the guest now"),
        ({"loaded_into": OTHER_QEMU, "continued": True}, NO, (), "where the guest ran"),
        # Between the mark and the first instruction nothing is lost.
        ({"loaded_into": OTHER_QEMU}, NO, (), "exactly as they were at the save, so that nothing"),
        ({"loaded_into": OTHER_QEMU}, NO, CHANGED, "have changed since the save: /d/a: size_bytes"),
        ({"loaded_into": OTHER_QEMU}, NO, None, "written to is not known"),
    ],
)
def test_a_crash_between_mark_and_run_is_told_from_a_guest_that_ran(
    image, holder_lives, changed, words
):
    told = why_spent(an_image(state="spent", **image), holder_lives=holder_lives, changed=changed)
    assert words in told
