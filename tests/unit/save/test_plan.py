# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save decides before it touches the guest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._qemu_conf import QemuConf
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._plan import (
    check_guest,
    choose_identity,
    choose_kind,
    launch_warnings,
    plan_save,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_UUID,
    RAM_BYTES,
    SOCKET,
    SURROUNDINGS,
    UUID,
    a_guest,
    an_image,
)

NO_CONF = QemuConf("/etc/libvirt/qemu.conf", None, None)


def a_request(**options):
    return SaveRequest(path=IMAGE, qmp_socket=SOCKET, **options)


def a_plan(request=None, guest=None, existing=None, **facts):
    return plan_save(
        request or a_request(),
        guest or a_guest(),
        NO_CONF,
        existing,
        None,
        **{"cpu_count": 2, "free_bytes": 1 << 40, **facts},
    )


@pytest.mark.parametrize(
    ("options", "conf", "expected"),
    [
        ({}, (None, None), (3, "raw", "mapped-ram")),
        ({}, (3, None), (3, "raw", "mapped-ram")),
        ({}, (2, None), (2, "raw", "sequential")),
        ({}, (2, "sparse"), (2, "sparse", "mapped-ram")),
        ({"image_version": 2}, (None, None), (2, "raw", "sequential")),
        ({"image_version": 2}, (3, "sparse"), (2, "sparse", "mapped-ram")),
        ({"image_version": 3}, (2, "raw"), (3, "raw", "mapped-ram")),
        ({"image_format": "sparse"}, (3, None), (2, "sparse", "mapped-ram")),
        ({"image_format": "raw"}, (3, None), (2, "raw", "sequential")),
        ({"image_version": 2, "image_format": "sparse"}, (3, "raw"), (2, "sparse", "mapped-ram")),
    ],
)
def test_version_and_format_come_from_the_options_then_qemu_conf_then_version_3(
    options, conf, expected
):
    kind = choose_kind(a_request(**options), QemuConf("/etc/libvirt/qemu.conf", *conf))
    assert (kind.version, kind.image_format, kind.layout) == expected


@pytest.mark.parametrize("image_format", ["raw", "sparse"])
def test_version_3_with_a_format_is_refused(image_format):
    with pytest.raises(Refused, match="does not go with image_version 3"):
        choose_kind(a_request(image_version=3, image_format=image_format), NO_CONF)


def test_a_compressor_that_version_3_ignores_is_a_warning():
    kind = choose_kind(a_request(), QemuConf("/etc/libvirt/qemu.conf", None, "zstd"))
    assert kind.version == 3
    assert "zstd" in kind.warnings[0]


@pytest.mark.parametrize("label", ["gzip", "bzip2", "xz", "lzop", "zstd"])
def test_a_compressor_makes_a_version_2_image_whose_stream_goes_through_a_pipe(label):
    kind = choose_kind(a_request(), QemuConf("/etc/libvirt/qemu.conf", 2, label))
    assert (kind.version, kind.image_format, kind.layout) == (2, label, "sequential")
    assert a_plan(a_request(image_format=label)).through_pipe is True


@pytest.mark.parametrize(
    ("options", "through_pipe"),
    [
        ({"image_format": "raw"}, False),
        ({"image_format": "raw", "bypass_cache": True}, True),
        ({"image_format": "sparse", "bypass_cache": True}, False),
        ({"bypass_cache": True}, False),
    ],
)
def test_a_plain_stream_goes_through_a_pipe_only_for_the_o_direct_pump(options, through_pipe):
    assert a_plan(a_request(**options)).through_pipe is through_pipe


@pytest.mark.parametrize(
    ("guest", "options", "xml", "expected"),
    [
        ({}, {}, None, ("web01", UUID)),
        ({"name": None, "uuid": None}, {}, None, ("web01", None)),
        ({"name": None, "uuid": None}, {"name": "db", "uuid": UUID}, None, ("db", UUID)),
        ({"name": None, "uuid": None}, {}, ("xml-name", UUID), ("xml-name", UUID)),
        ({}, {"name": "web01", "uuid": UUID.upper()}, ("web01", None), ("web01", UUID)),
    ],
)
def test_identity_comes_from_qemu_then_the_options_then_the_xml_then_the_file_name(
    guest, options, xml, expected
):
    assert choose_identity(a_request(**options), a_guest(**guest), xml) == expected


@pytest.mark.parametrize(
    ("options", "xml"),
    [
        ({"name": "other"}, None),
        ({"uuid": OTHER_UUID}, None),
        ({}, ("other", None)),
        ({}, ("web01", OTHER_UUID)),
    ],
)
def test_two_sources_that_contradict_each_other_are_refused(options, xml):
    with pytest.raises(Refused, match="looks like another guest"):
        choose_identity(a_request(**options), a_guest(), xml)


@pytest.mark.parametrize("uuid", ["00000000-0000-0000-0000-000000000000", "web01"])
def test_a_uuid_option_that_identifies_nothing_is_refused(uuid):
    with pytest.raises(Refused, match="Option uuid"):
        choose_identity(a_request(uuid=uuid), a_guest(uuid=None), None)


@pytest.mark.parametrize(
    ("guest", "words"),
    [
        ({"run_state": "postmigrate"}, "postmigrate"),
        ({"run_state": "inmigrate"}, "inmigrate"),
        ({"migration_status": "active"}, "migration"),
        ({"blocked_reasons": ("non-migratable device: nvme",)}, "nvme"),
        ({"suppresses_vmdesc": True}, r"suppress-vmdesc is on.*Switch it off"),
    ],
)
def test_a_guest_that_cannot_be_saved_is_refused_with_the_reason_and_its_state(guest, words):
    with pytest.raises(Refused, match=words) as refused:
        check_guest(frozenset(), a_guest(**guest))
    assert refused.value.facts["guest"] == {"state": a_guest(**guest).run_state}


def test_every_reason_is_named_at_once():
    guest = a_guest(run_state="postmigrate", blocked_reasons=("reason one", "reason two"))
    with pytest.raises(Refused) as refused:
        check_guest(frozenset(), guest)
    for words in ("postmigrate", "reason one", "reason two"):
        assert words in refused.value.message


@pytest.mark.parametrize(("run_state", "was_running"), [("running", True), ("paused", False)])
def test_the_plan_remembers_whether_the_guest_ran(run_state, was_running):
    plan = a_plan(guest=a_guest(run_state=run_state))
    assert (plan.was_running, plan.run_state_before) == (was_running, run_state)


def test_the_plan_bounds_the_size_by_the_ram_and_warns_when_it_may_not_fit():
    plan = a_plan(free_bytes=RAM_BYTES)
    assert plan.at_most_bytes > RAM_BYTES
    assert any("may need up to" in warning for warning in plan.warnings)
    assert not a_plan().warnings


def test_the_plan_says_unproven_for_o_direct_until_it_was_tried():
    request = a_request(bypass_cache=True)
    assert a_plan(request).as_dict()["bypass_cache_proved"] == "unproven"
    assert a_plan(request, direct_io_proved=True).as_dict()["bypass_cache_proved"] is True
    assert a_plan().as_dict()["bypass_cache_proved"] is False


def test_o_direct_asked_for_and_refused_by_the_filesystem_is_an_error():
    with pytest.raises(Refused, match="O_DIRECT"):
        a_plan(a_request(bypass_cache=True), direct_io_proved=False)


def test_another_guests_ready_image_is_not_replaced_unless_overwrite_says_so():
    existing = an_image(uuid=OTHER_UUID, name="db01")
    with pytest.raises(Refused, match=r"db01.*overwrite"):
        a_plan(existing=existing)
    assert a_plan(a_request(overwrite=True), existing=existing).replaces == existing


@pytest.mark.parametrize(
    ("surroundings", "words"),
    [
        (SURROUNDINGS, None),
        (None, "not recorded; its restore will need argv"),
        (
            replace(SURROUNDINGS, argv=(*SURROUNDINGS.argv, "-netdev", "tap,id=net0,vhostfds=7:8")),
            "-netdev net0",
        ),
    ],
)
def test_what_a_restore_will_lack_is_known_while_the_guest_is_still_there(surroundings, words):
    warnings = launch_warnings(a_guest(surroundings=surroundings))
    assert (words is None) == (warnings == ())
    assert all(words in warning for warning in warnings)
