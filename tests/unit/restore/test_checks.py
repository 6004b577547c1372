# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What image and host tell about a restore before there is a QEMU."""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fingerprint import (
    Fingerprint,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._checks import (
    Check,
    check_disks,
    check_source,
    look_at_launch,
    refuse_problems,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._launching import (
    choose_launch,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_QEMU,
    SOCKET,
    SURROUNDINGS,
    THIS_QEMU,
    an_image,
)

HERE = "host-1"


def request(*allow):
    return RestoreRequest(IMAGE, allow=frozenset(allow))


def source(image, *allow, alive=(), waiting=None):
    return check_source(
        an_image(host=HERE, **image),
        request(*allow),
        this_host=HERE,
        alive=lambda process: process in alive,
        waiting=waiting,
    )


def test_a_guest_whose_qemu_has_ended_may_be_brought_back():
    assert source({}) == Check("source_gone", "yes")


@pytest.mark.parametrize(
    ("image", "alive", "words"),
    [
        ({}, THIS_QEMU, "saved from, process 4711"),
        ({"loaded_into": OTHER_QEMU}, OTHER_QEMU, "loaded into, process 4712"),
        # Even one that was spent: rolling its disks back does not end it.
        ({"state": "spent", "loaded_into": OTHER_QEMU}, OTHER_QEMU, "process 4712"),
    ],
)
def test_a_second_copy_of_a_guest_that_lives_is_refused(image, alive, words):
    (problem,) = source(image, alive=[alive]).problems
    assert words in problem
    assert "still lives" in problem


def test_no_option_allows_a_second_copy():
    everything = ("changed_disks", "other_machine", "spent")
    assert source({}, *everything, alive=[THIS_QEMU]).problems


def test_the_qemu_that_shall_take_the_guest_is_no_second_copy():
    held = {"loaded_into": OTHER_QEMU}
    assert source(held, alive=[OTHER_QEMU], waiting=OTHER_QEMU).answer == "yes"


def test_of_a_process_that_was_not_seen_nothing_is_known():
    assert source({"saved_from": None}) == Check("source_gone", "unknown")


def test_an_image_of_another_host_is_restored_only_by_name():
    def elsewhere(*allow):
        return check_source(
            an_image(host="host-2"),
            request(*allow),
            this_host=HERE,
            alive=lambda process: False,
            waiting=None,
        )

    assert "allow other_machine" in elsewhere().problems[0]
    allowed = elsewhere("other_machine")
    assert (allowed.answer, allowed.problems) == ("allowed", ())
    assert "another host" in allowed.warnings[0]


def test_disks_that_are_as_they_were_are_no_problem():
    assert check_disks(an_image(disks_boot_id="b"), request(), ()).answer == "yes"


def test_of_disks_that_were_not_recorded_nothing_is_known():
    assert check_disks(an_image(), request(), ()) == Check("disks_unchanged", "unknown")


def test_a_disk_that_could_not_be_read_at_the_save_is_told():
    unread = Fingerprint("/d/a", "unreadable", {"reason": "Permission denied"}, {})
    check = check_disks(an_image(disks_boot_id="b", disks=(unread,)), request(), ())
    assert (check.answer, check.problems) == ("unknown", ())
    assert "/d/a" in check.warnings[0]


def test_a_changed_disk_refuses_the_restore_and_says_what_differs():
    changed = ("/d/a: mtime_ns was 1, is 2",)
    (problem,) = check_disks(an_image(disks_boot_id="b"), request(), changed).problems
    assert "/d/a: mtime_ns was 1, is 2" in problem
    allowed = check_disks(an_image(disks_boot_id="b"), request("changed_disks"), changed)
    assert (allowed.answer, allowed.problems) == ("allowed", ())
    assert "/d/a: mtime_ns was 1, is 2" in allowed.warnings[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    ("argv", "unit", "asked", "trusts"),
    [
        (None, None, None, True),
        (("sh",), None, None, False),
        (("sh",), "web01.service", None, True),
        (("sh",), "web01.service", "web01.service", False),
    ],
)
def test_the_image_is_trusted_only_as_far_as_it_decides_what_runs(
    tmp_path, argv, unit, asked, trusts
):
    image = tmp_path / "image"
    image.touch()
    os.chown(image, 65534, 65534)
    saved = an_image(launch=SURROUNDINGS, systemd_unit=unit)
    wanted = RestoreRequest(str(image), argv=argv, systemd_unit=asked)
    launch = choose_launch(saved, wanted, SOCKET)
    assert launch is not None
    with image.open("rb") as file:
        checks = look_at_launch(saved, wanted, file.fileno(), launch, replaces=True)
    told = [problem for check in checks for problem in check.problems]
    assert any("somebody else could have written it" in problem for problem in told) is trusts
    # Of words that are not trusted nothing is even looked at.
    assert (len(checks) == 1) is trusts


def test_every_problem_is_told_at_once():
    with pytest.raises(Refused) as refused:
        refuse_problems(IMAGE, [Check("a", "unknown", ("One.", "Two.")), Check("b", "yes")])
    assert refused.value.message.endswith("cannot be restored now: One. Two.")


def test_checks_without_a_problem_refuse_nothing():
    refuse_problems(IMAGE, [Check("a", "yes"), Check("b", "unknown"), Check("c", "allowed")])
