# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A write protection that somebody put on an image is theirs; one of a restore is the restore's."""

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import (
    IMMUTABLE,
    lift,
    protect,
    protection,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, image_info


@pytest.fixture
def immutable(image):
    with open(image, "rb") as file:
        if protect(file.fileno(), str(image)) != IMMUTABLE:
            pytest.skip("files cannot be made immutable here; `make test` as root runs this")
        yield image
        lift(file.fileno(), str(image))


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check"])
def test_an_image_that_an_operator_made_immutable_is_refused_and_stays_so(
    qemu, immutable, check_mode
):
    with pytest.raises(Refused, match=r"is immutable, and no restore made it so.*chattr -i"):
        do_restore(qemu.qmp_socket, immutable, check_mode=check_mode)
    with open(immutable, "rb") as file:
        assert protection(file.fileno()) == IMMUTABLE


def test_root_restores_an_image_that_nobody_may_write_and_leaves_its_mode(qemu, image):
    if os.geteuid() != 0:
        pytest.skip("others are kept from writing by the mode")
    os.chmod(image, 0o400)
    do_restore(qemu.qmp_socket, image)
    assert stat.S_IMODE(os.stat(image).st_mode) == 0o400
    assert image_info(image)["state"] == "spent"
