# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the host modules, as Ansible hands them over."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._options import (
    GUEST_ARGUMENTS,
    RESUME_ARGUMENTS,
    SUSPEND_ARGUMENTS,
    resume_request,
    suspend_request,
)


def given(spec, **options):
    return {**{name: entry.get("default") for name, entry in spec.items()}, **options}


def suspend(**options):
    options.setdefault("uri", "qemu:///system")
    guests = [given(GUEST_ARGUMENTS, **guest) for guest in options.pop("guests", [])]
    return suspend_request(given(SUSPEND_ARGUMENTS, guests=guests, **options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"uri": None}, "Name the guests of this host: qmp_sockets, uri"),
        ({"window_seconds": 0}, "window_seconds must be positive"),
        ({"timeout": -1}, "timeout must not be negative"),
        ({"max_concurrent": 0}, "max_concurrent must be 1 or more"),
        ({"store": "images"}, "Option store must be an absolute path"),
        ({"guests": [{"name": "a", "path": "x"}]}, "Option path must be an absolute path"),
        ({"guests": [{"name": "a"}, {"name": "a"}]}, "names a twice"),
        ({"hold_until": "tomorrow"}, "hold_until must be a time in ISO 8601"),
        ({"hold_until": "2026-11-24T04:00:00"}, "with its offset"),
    ],
)
def test_what_an_argument_spec_cannot_say_is_refused_in_words(options, words):
    with pytest.raises(Refused, match=words):
        suspend(**options)


@pytest.mark.parametrize("text", ["2026-11-24T04:00:00+01:00", "2026-11-24T03:00:00Z"])
def test_a_moment_has_its_offset(text):
    assert suspend(hold_until=text).hold_until == text


def test_only_what_was_given_is_passed_on():
    assert suspend().defaults == {}
    everything = suspend(timeout=5, bypass_cache=False, image_version=2, parallel_channels=3)
    assert everything.defaults == {
        "timeout_seconds": 5,
        "bypass_cache": False,
        "image_version": 2,
        "parallel_channels": 3,
    }
    assert resume_request(given(RESUME_ARGUMENTS, load="lazy")).defaults == {"load": "lazy"}


def test_one_list_of_guests_serves_both_directions():
    entry = {
        "name": "web01",
        "timeout": 7,
        "allow": ["lose_bitmaps", "spent"],
        "verify": "content",
        "load": "lazy",
        "argv": ["qemu", "-m", "1"],
        "systemd_unit": "web01.service",
    }
    guest = HostGuest("web01", None, Source(qmp_socket="/q"), "running", None, 1, 1, 1)
    wish = suspend(guests=[entry]).wishes.of(guest)
    assert wish.save == {
        "systemd_unit": "web01.service",
        "timeout_seconds": 7,
        "verify": "content",
        "allow": {"lose_bitmaps"},
    }
    assert wish.restore == {
        "systemd_unit": "web01.service",
        "timeout_seconds": 7,
        "argv": ("qemu", "-m", "1"),
        "load": "lazy",
        "allow": {"spent"},
    }
