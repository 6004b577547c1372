# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked before a guest's RAM is mapped from its image, and what is planned then."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mapped_argv import ImageBlock
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._checks import Check
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._launching import (
    choose_launch,
    launch_or_none,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._lazy_checks import (
    check_reader,
    check_store,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._plan import (
    check_image,
    plan_load,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    RAM_BYTES,
    SOCKET,
    SURROUNDINGS,
    a_guest,
    an_image,
)

LAZY = RestoreRequest(IMAGE, load="lazy")
ON_NFS = "it lies on filer:/images, a filesystem of type nfs4 that others serve"
BLOCKS = (ImageBlock("pc.ram", RAM_BYTES, 4096, 1 << 20),)


def lazily(**changes):
    return replace(LAZY, **changes)


def test_a_store_that_stays_is_fine():
    assert check_store(None, LAZY) == Check("store_steady", "yes")


def test_a_store_that_may_go_away_is_a_problem_that_can_be_allowed_and_is_warned_of_then():
    check = check_store(ON_NFS, LAZY)
    assert (check.answer, len(check.problems)) == ("unknown", 1)
    assert "allow unsteady_store" in check.problems[0]
    allowed = check_store(ON_NFS, lazily(allow=frozenset({"unsteady_store"})))
    assert (allowed.answer, allowed.problems) == ("allowed", ())
    assert ON_NFS in allowed.warnings[0]


def a_file(mode, user=0, group=0):
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("file", "runs_as", "listed", "answer"),
    [
        (a_file(0o600), None, False, "yes"),
        (a_file(0o600), {"user_id": 0}, False, "yes"),
        (a_file(0o600, user=64055), {}, False, "yes"),
        (a_file(0o604), {}, False, "yes"),
        (a_file(0o640, group=64055), {}, False, "yes"),
        (a_file(0o640, group=36), {"groups": (64055, 36)}, False, "yes"),
        (a_file(0o600), {}, True, "unknown"),
    ],
)
def test_qemu_must_be_able_to_open_the_image_by_its_name(file, runs_as, listed, answer):
    surroundings = None if runs_as is None else replace(SURROUNDINGS, **runs_as)
    check = check_reader(IMAGE, file, surroundings, has_access_list=listed)
    assert (check.answer, check.problems) == (answer, ())


@pytest.mark.parametrize("file", [a_file(0o600), a_file(0o640), a_file(0o604, group=64055)])
def test_a_user_who_cannot_read_the_image_is_named_with_the_command_that_lets_it(file):
    check = check_reader(IMAGE, file, SURROUNDINGS, has_access_list=False)
    assert f"setfacl -m u:64055:r {IMAGE}" in check.problems[0]


@pytest.mark.parametrize(
    ("image", "request_", "words"),
    [
        ({"layout": "sequential"}, LAZY, "is sequential"),
        (
            {"layout": "sequential", "compressor": "zstd"},
            LAZY,
            "is compressed with zstd",
        ),
        ({}, lazily(bypass_cache=True), "bypass_cache does not go with load lazy"),
    ],
)
def test_what_cannot_be_mapped_is_refused_from_the_image_alone(image, request_, words):
    with pytest.raises(Refused, match=words):
        check_image(an_image(**image), request_)


def test_the_recorded_and_a_given_command_line_are_rewritten_alike():
    image = an_image(launch=SURROUNDINGS, page_blocks=BLOCKS)
    given = ("qemu-system-x86_64", "-m", "64")
    for request in (LAZY, lazily(argv=given)):
        chosen = choose_launch(image, request, SOCKET)
        assert chosen is not None
        assert (chosen.mapped, chosen.mapped_bytes) == (BLOCKS, RAM_BYTES)
        assert any(f"mem-path={IMAGE}" in word for word in chosen.argv)
        assert not any("mem-path" in word for word in chosen.own_argv)


def test_an_eager_load_maps_nothing():
    image = an_image(launch=SURROUNDINGS, page_blocks=BLOCKS)
    chosen = choose_launch(image, RestoreRequest(IMAGE), SOCKET)
    assert chosen is not None
    assert (chosen.mapped, chosen.mapped_bytes) == ((), 0)


def test_a_command_line_that_cannot_be_mapped_is_none_that_a_dead_run_can_have_started():
    image = an_image(launch=SURROUNDINGS, page_blocks=BLOCKS)
    request = lazily(argv=("qemu-system-x86_64", "-mem-prealloc"))
    assert launch_or_none(image, request, SOCKET) is None


def test_mapped_ram_is_loaded_around_over_one_channel_whatever_was_asked_for():
    plan = plan_load(
        an_image(),
        replace(a_guest(), run_state="inmigrate"),
        lazily(parallel_channels=4, prefetch="full"),
        launch="recorded",
        checks=(),
        cpu_count=8,
        direct_io_proved=None,
        stale_backends=(),
        mapped_bytes=RAM_BYTES,
    ).as_dict()
    assert (plan["load"], plan["mapped_bytes"], plan["prefetch"]) == ("lazy", RAM_BYTES, "full")
    assert (plan["parallel_channels"], plan["bypass_cache"]) == (1, False)
    assert "mapped" in plan["reasons"]["parallel_channels"]
