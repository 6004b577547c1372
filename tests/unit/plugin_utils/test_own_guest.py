# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest that the controller runs in."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._own_guest import uuids_of


@pytest.mark.parametrize(
    ("product_uuid", "expected"),
    [
        (
            "6F3C1C7E-2A40-4D3F-9D0A-3E5B0C1F8A77\n",
            (
                "6f3c1c7e-2a40-4d3f-9d0a-3e5b0c1f8a77",
                "7e1c3c6f-402a-3f4d-9d0a-3e5b0c1f8a77",
            ),
        ),
        ("", ()),
        ("Not Settable", ()),
    ],
)
def test_uuids_in_both_byte_orders(product_uuid, expected):
    assert uuids_of(product_uuid) == expected


@pytest.mark.parametrize("digit", "0f")
def test_what_firmware_writes_when_it_knows_none_names_nobody(digit):
    assert uuids_of("-".join(digit * count for count in (8, 4, 4, 4, 12))) == ()
