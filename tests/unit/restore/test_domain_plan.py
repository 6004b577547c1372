# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left to do for a domain, from its activity and the image alone."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_plan import (
    Step,
    check_owner,
    decide,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_request import (
    DomainRestoreRequest,
)
from ansible_collections.vmfleet.suspend.tests.support.values import (
    IMAGE,
    OTHER_UUID,
    UUID,
    a_domain,
    an_image,
)


def a_request(**options):
    return DomainRestoreRequest(path=IMAGE, domain="web01", uri="qemu:///system", **options)


# Domain, image, whether a run of ours began to load it, whether it shall run: what is done
DONE = [
    (None, "ready", False, True, Step.LOAD),
    (None, "spent", False, True, Step.LOAD),  # whether a spent one may is asked elsewhere
    ("shutoff", "ready", False, True, Step.LOAD),
    ("shutoff", "ready", True, True, Step.LOAD),  # that load died with its QEMU
    ("running", "spent", False, True, Step.NOTHING),
    ("running", "spent", True, True, Step.NOTHING),
    ("pmsuspended", "spent", False, True, Step.NOTHING),
    ("paused", "spent", True, True, Step.CONTINUE),
    ("paused", "spent", True, False, Step.NOTHING),
    ("paused", "spent", False, True, Step.NOTHING),  # the operator paused it
    ("paused", "ready", True, True, Step.CONTINUE),
    ("paused", "ready", True, False, Step.NOTHING),
]


@pytest.mark.parametrize(("state", "image", "loaded_by_us", "runs", "step"), DONE)
def test_what_is_left_to_do(state, image, loaded_by_us, runs, step):
    domain = a_domain(state) if state is not None else None
    found, _reason = decide(
        an_image(state=image), domain, loaded_by_us=loaded_by_us, run_afterwards=runs
    )
    assert found is step


REFUSED = [
    ("running", {}, "ready", False, "started from elsewhere, and the image is stale"),
    ("running", {}, "ready", True, "started from elsewhere, and the image is stale"),
    ("paused", {}, "ready", False, "started from elsewhere, and the image is stale"),
    ("pmsuspended", {}, "ready", False, "started from elsewhere, and the image is stale"),
    ("paused", {"starting": True}, "ready", True, "Wait until that is over"),
    ("running", {"job": True}, "spent", False, "Wait until that is over"),
    ("crashed", {}, "ready", False, "it is crashed"),
    ("shutdown", {}, "spent", False, "it is shutdown"),
    ("shutoff", {"has_managed_save": True}, "ready", False, "virsh managedsave-remove web01"),
]


@pytest.mark.parametrize(("state", "domain", "image", "loaded_by_us", "words"), REFUSED)
def test_what_is_refused(state, domain, image, loaded_by_us, words):
    with pytest.raises(Refused, match=words) as refused:
        decide(
            an_image(state=image),
            a_domain(state, **domain),
            loaded_by_us=loaded_by_us,
            run_afterwards=True,
        )
    assert refused.value.facts["guest"]["state"] == state


def test_a_paused_domain_that_was_seen_to_run_is_left_paused():
    image = an_image(state="spent", continued=True)
    step, _reason = decide(image, a_domain("paused"), loaded_by_us=True, run_afterwards=True)
    assert step is Step.NOTHING


@pytest.mark.parametrize("named", ["web01", UUID, UUID.upper()])
def test_an_image_is_found_by_name_or_uuid(named):
    check_owner(
        an_image(name="web01", uuid=UUID),
        DomainRestoreRequest(path=IMAGE, domain=named, uri="qemu:///system"),
    )


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"name": "db01", "uuid": UUID}, "is of db01 .*not of web01"),
        ({"name": "db01", "uuid": OTHER_UUID}, "is of db01 .*not of web01"),
        ({"name": "web01", "uuid": None}, "names no UUID"),
    ],
)
def test_the_image_of_another_domain_is_refused(image, words):
    with pytest.raises(Refused, match=words):
        check_owner(an_image(**image), a_request())
