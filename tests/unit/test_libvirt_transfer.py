# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many channels libvirt is told, and why."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import LibvirtError, Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._virsh import lacks_channels
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt_transfer import (
    left_to_libvirt,
)


@pytest.mark.parametrize(
    ("layout", "asked", "may_choose", "cpu_count", "channels"),
    [
        ("mapped-ram", None, True, 2, 2),
        ("mapped-ram", None, True, 64, 4),
        ("mapped-ram", 8, True, 2, 8),
        ("mapped-ram", None, False, 2, 1),
        ("sequential", None, True, 2, 0),
    ],
)
def test_channels(layout, asked, may_choose, cpu_count, channels):
    found = left_to_libvirt(
        layout,
        channels_asked=asked,
        bypass_cache_asked=None,
        cpu_count=cpu_count,
        may_choose=may_choose,
    )
    assert (found.channels, found.bypass_cache) == (channels, False)
    assert (found.reasons["parallel_channels"] == "asked for") is (asked is not None)


@pytest.mark.parametrize("asked", [-3, 0, 256])
def test_a_number_that_qemu_does_not_take_is_refused(asked):
    with pytest.raises(Refused, match=rf"a number from 1 to 255, not {asked}"):
        left_to_libvirt("mapped-ram", channels_asked=asked, bypass_cache_asked=None, cpu_count=1)


@pytest.mark.parametrize(
    ("code", "words", "lacks"),
    [
        (8, "invalid type 'ullong' for parameter 'parallel.channels', expected 'int'", True),
        (8, "Ungültiger Typ 'ullong' für Parameter 'parallel.channels', erwartete 'int'", True),
        (8, "invalid argument: something else", False),
        (1, "internal error: parallel.channels", False),
    ],
)
def test_a_binding_that_cannot_say_channels_is_known_in_every_language(code, words, lacks):
    assert lacks_channels(LibvirtError("Saving", words, code)) is lacks


@pytest.mark.parametrize("asked", [True, False])
def test_the_cache_is_as_asked_for(asked):
    found = left_to_libvirt(
        "mapped-ram", channels_asked=None, bypass_cache_asked=asked, cpu_count=1
    )
    assert (found.bypass_cache, found.reasons["bypass_cache"]) == (asked, "asked for")
