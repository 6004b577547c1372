# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which QEMU a restore would start, from image and options."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._launching import (
    choose_launch,
    choose_socket,
    launch_or_none,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    SOCKET,
    SURROUNDINGS,
    an_image,
)

GIVEN = ("qemu-system-x86_64", "-m", "64")
INHERITS = replace(SURROUNDINGS, argv=(*SURROUNDINGS.argv, "-netdev", "tap,id=net0,fd=24"))


def launch(image, **options):
    return choose_launch(image, RestoreRequest(IMAGE, **options), SOCKET)


@pytest.mark.parametrize(
    ("asked", "recorded", "socket"),
    [("/run/other.qmp", SOCKET, "/run/other.qmp"), (None, SOCKET, SOCKET)],
)
def test_it_listens_where_it_was_asked_to_or_where_the_guest_did(asked, recorded, socket):
    request = RestoreRequest(IMAGE, asked)
    assert choose_socket(an_image(qmp_socket=recorded), request) == socket


def test_an_image_that_does_not_tell_its_socket_needs_one():
    with pytest.raises(Refused, match="Give qmp_socket"):
        choose_socket(an_image(qmp_socket=None), RestoreRequest(IMAGE))


def test_the_recorded_command_line_is_pinned_to_what_was_saved_and_made_to_wait():
    chosen = launch(an_image(launch=SURROUNDINGS))
    assert chosen is not None
    assert chosen.own_argv[:3] == ("/usr/bin/qemu-system-x86_64", "-machine", "pc-q35-10.0")
    assert chosen.argv[: len(chosen.own_argv)] == chosen.own_argv
    assert chosen.argv[-5:] == (
        *("-qmp", f"unix:{SOCKET},server=on,wait=off"),
        *("-incoming", "defer", "-S"),
    )
    assert (chosen.surroundings, chosen.origin) == (SURROUNDINGS, "recorded")


def test_given_words_take_its_place_and_run_as_this_run_does():
    chosen = launch(an_image(launch=SURROUNDINGS), argv=GIVEN)
    assert chosen is not None
    assert chosen.own_argv == GIVEN
    assert (chosen.surroundings, chosen.origin) == (None, "given")


def test_without_a_record_nothing_tells_how():
    assert launch(an_image()) is None


def test_a_command_line_that_lived_on_descriptors_of_its_starter_is_refused_by_name():
    image = an_image(launch=INHERITS)
    with pytest.raises(Refused, match="netdev net0"):
        launch(image)
    assert launch(image, argv=GIVEN) is not None
    assert launch_or_none(image, RestoreRequest(IMAGE), SOCKET) is None


@pytest.mark.parametrize(
    ("asked", "recorded", "unit", "by_image"),
    [
        (None, None, None, False),
        ("web01.service", None, "web01.service", False),
        (None, "web01.service", "web01.service", True),
        ("web02.service", "web01.service", "web02.service", False),
        ("", "web01.service", None, False),
    ],
)
def test_the_unit_is_the_one_that_was_asked_for_or_told_to_the_save(
    asked, recorded, unit, by_image
):
    chosen = launch(an_image(launch=SURROUNDINGS, systemd_unit=recorded), systemd_unit=asked)
    assert chosen is not None
    assert (chosen.systemd_unit, chosen.unit_recorded) == (unit, by_image)
