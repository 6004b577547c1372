# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a record says is believed only as far as it is what it should be."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._image_record import _path


@pytest.mark.parametrize(
    ("recorded", "path"),
    [
        ("/run/qemu/web01.qmp", "/run/qemu/web01.qmp"),
        ("/run/qemu/\udcff.qmp", "/run/qemu/\udcff.qmp"),
        ("/run/qemu/\ud800.qmp", None),
        ("web01.qmp", None),
        ("/run/a\0b", None),
        ("", None),
        (5, None),
        (None, None),
        (["/run/qemu/web01.qmp"], None),
    ],
)
def test_a_recorded_path_is_absolute_and_can_be_told_to_the_kernel(recorded, path):
    assert _path({"qmp_socket": recorded}, "qmp_socket") == path


def test_what_is_not_recorded_is_none():
    assert _path({}, "qmp_socket") is None
