# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save of a domain does, from what daemon, QEMU and store can."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._qemu_conf import QemuConf
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_plan import (
    Offer,
    check_domain,
    choose_domain_kind,
    plan_domain_save,
    saved_before,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_request import (
    DomainSaveRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_UUID,
    UUID,
    a_domain,
    an_image,
)

ALL = Offer(choice=True, sparse=True, direct_io=True)
QEMU_9_0 = Offer(choice=True, sparse=True, direct_io=False)
OLD_QEMU = Offer(choice=True, sparse=False, direct_io=False)
OLD_LIBVIRT = Offer(choice=False, sparse=False, direct_io=True)


def a_request(**options):
    return DomainSaveRequest(
        **{"path": IMAGE, "domain": "web01", "uri": "qemu:///system", **options}
    )


def conf(version=None, image_format=None):
    return QemuConf("/etc/libvirt/qemu.conf", version, image_format)


def plan(request=None, *, domain=None, existing=None, offer=ALL, free_bytes=1 << 40, proved=None):
    return plan_domain_save(
        request or a_request(),
        domain or a_domain(),
        conf(),
        existing,
        offer,
        cpu_count=2,
        free_bytes=free_bytes,
        direct_io_proved=proved,
    )


KINDS = [
    ({}, conf(), ALL, (2, "sparse")),
    ({}, conf(None, "zstd"), ALL, (2, "sparse")),  # the daemon reads it, and it can be mapped
    ({}, conf(3), ALL, (3, "raw")),
    ({}, conf(2), ALL, (2, "sparse")),
    ({}, conf(), OLD_QEMU, (2, "raw")),
    ({}, conf(None, "zstd"), OLD_LIBVIRT, (2, "zstd")),
    ({"image_version": 3}, conf(), ALL, (3, "raw")),
    ({"image_version": 2}, conf(3), ALL, (2, "sparse")),
    ({"image_format": "raw"}, conf(3), ALL, (2, "raw")),
    ({"image_format": "sparse"}, conf(), ALL, (2, "sparse")),
    ({"image_format": "zstd"}, conf(None, "zstd"), OLD_LIBVIRT, (2, "zstd")),
]


@pytest.mark.parametrize(("options", "settings", "offer", "kind"), KINDS)
def test_version_and_format(options, settings, offer, kind):
    found = choose_domain_kind(a_request(**options), settings, offer)
    assert (found.version, found.image_format) == kind


@pytest.mark.parametrize(
    ("options", "settings", "offer", "words"),
    [
        ({"image_version": 3, "image_format": "raw"}, conf(), ALL, "does not go with"),
        ({"image_version": 3}, conf(), OLD_QEMU, "needs libvirt 11.2 and, under the domain, QEMU"),
        ({}, conf(3), OLD_LIBVIRT, "save_image_version of .*needs libvirt 11.2"),
        ({"image_format": "sparse"}, conf(), OLD_LIBVIRT, "needs libvirt 11.2"),
        ({"image_format": "zstd"}, conf(), OLD_LIBVIRT, "Set save_image_format there"),
    ],
)
def test_what_daemon_or_qemu_cannot_write_is_refused(options, settings, offer, words):
    with pytest.raises(Refused, match=words):
        choose_domain_kind(a_request(**options), settings, offer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "crashed"}, "has crashed"),
        ({"state": "shutdown"}, "is shutting down"),
        ({"state": "pmsuspended"}, "virsh dompmwakeup"),
        ({"state": "paused", "starting": True}, "just being started or restored"),
        ({"job": True}, "a job of libvirt's runs on it"),
    ],
)
def test_a_domain_that_cannot_be_saved_now(changes, words):
    with pytest.raises(Refused, match=words) as refused:
        check_domain(a_domain(**changes))
    assert refused.value.facts["guest"]["name"] == "web01"


def test_every_reason_is_told_at_once():
    with pytest.raises(Refused, match=r"has crashed.*; a job of libvirt's"):
        check_domain(a_domain(state="crashed", job=True))


@pytest.mark.parametrize(("state", "was_running"), [("running", True), ("paused", False)])
def test_it_is_saved_as_it_is(state, was_running):
    assert plan(domain=a_domain(state=state)).was_running is was_running


def test_a_transient_domain_is_saved_with_a_warning():
    assert "is transient" in plan(domain=a_domain(persistent=False)).warnings[0]
    assert plan().warnings == ()


def test_a_store_that_may_be_too_small_is_a_warning():
    assert "1000 bytes free" in plan(free_bytes=1000).warnings[0]


@pytest.mark.parametrize(
    ("options", "channels"),
    [({}, 2), ({"parallel_channels": 7}, 7), ({"image_format": "raw"}, 0)],
)
def test_channels(options, channels):
    assert plan(a_request(**options)).negotiated.channels == channels


def test_channels_do_not_go_with_one_stream():
    with pytest.raises(Refused, match="parallel_channels 2 does not go with format raw"):
        plan(a_request(image_format="raw", parallel_channels=2))


@pytest.mark.parametrize(
    ("options", "offer", "proved", "words"),
    [
        ({}, QEMU_9_0, None, "QEMU 9.1"),
        ({}, ALL, False, "does not do O_DIRECT"),
    ],
)
def test_bypass_cache_that_was_asked_for_and_cannot_be_is_refused(options, offer, proved, words):
    with pytest.raises(Refused, match=words):
        plan(a_request(bypass_cache=True, **options), offer=offer, proved=proved)


def test_a_sequential_stream_goes_past_the_cache_without_qemu():
    request = a_request(bypass_cache=True, image_format="raw")
    assert plan(request, offer=OLD_QEMU).negotiated.bypass_cache


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"state": "ready", "uuid": OTHER_UUID}, "which is not this domain"),
        ({"state": "spent", "uuid": OTHER_UUID}, "which is not this domain"),
        ({"state": "ready", "uuid": None}, "UUID unknown"),
        ({"state": "partial", "uuid": UUID}, "never finished"),
    ],
)
def test_what_is_replaced_only_when_asked_for(image, words):
    existing = an_image(**image)
    with pytest.raises(Refused, match=words):
        plan(existing=existing)
    assert plan(a_request(overwrite=True), existing=existing).replaces == existing


@pytest.mark.parametrize("state", ["ready", "spent"])
def test_its_own_older_image_is_replaced(state):
    assert plan(existing=an_image(state=state, uuid=UUID)).replaces is not None


@pytest.mark.parametrize(
    ("image", "domain", "words"),
    [
        (None, "web01", "no image"),
        ({"state": "spent"}, "web01", "is spent"),
        ({"state": "partial"}, "web01", "is partial"),
        ({"name": "db01", "uuid": OTHER_UUID}, "web01", "is of db01"),
    ],
)
def test_a_domain_that_is_gone_was_not_saved(image, domain, words):
    existing = an_image(**image) if image is not None else None
    why = saved_before(a_request(domain=domain), existing, None)
    assert why is not None and words in why


@pytest.mark.parametrize("named", ["web01", UUID, UUID.upper()])
def test_a_domain_that_is_gone_was_saved_before(named):
    image = an_image(name="web01", uuid=UUID, state="ready")
    assert saved_before(a_request(domain=named), image, None) is None


RAM_IN_A_FILE = Offer(choice=True, sparse=True, direct_io=True, ram_files=("/srv/nvdimm",))


def test_ram_in_a_file_that_outlives_qemu_is_saved_as_raw():
    """T4: a sparse load leaves what is in the file where the guest's page was zero."""
    kind = choose_domain_kind(a_request(), conf(), RAM_IN_A_FILE)
    assert (kind.image_format, kind.layout) == ("raw", "sequential")
    assert "/srv/nvdimm holds RAM" in kind.reason


@pytest.mark.parametrize("options", [{"image_format": "sparse"}, {"image_version": 3}])
def test_ram_in_a_file_does_not_go_with_mapped_ram(options):
    with pytest.raises(Refused, match=r"/srv/nvdimm holds RAM.*Ask for image_format raw"):
        choose_domain_kind(a_request(**options), conf(), RAM_IN_A_FILE)
