# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a suspend of a host would do to each guest, and why."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    Starter,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import Limits
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._guests import (
    HostGuest,
    Source,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._look import look_at
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._plan import (
    choose_limits,
    decide,
    make_plan,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._requests import (
    SuspendRequest,
    image_path,
    restore_request,
    save_request,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._seen import Seen, Store
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._wishes import (
    Wish,
    Wishes,
    selected,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt_transfer import (
    left_to_libvirt,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._domain_request import (
    DomainRestoreRequest,
    ManagedRestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._domain_request import (
    DomainSaveRequest,
    ManagedSaveRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._plan import (
    ImageKind,
    SavePlan,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest

DEVICE = 1
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


def a_guest(name="web01", size=100, **fields):
    fields = {"uuid": name, "source": Source(qmp_socket=f"/run/{name}"), **fields}
    return HostGuest(
        name,
        state="running",
        pid=None,
        memory_bytes=size,
        resident_bytes=None,
        estimated_bytes=size,
        **fields,
    )


def a_save_plan(name, size, channels=4):
    return SavePlan(
        path=f"/images/{name}.save",
        name=name,
        uuid=name,
        kind=ImageKind(3, "raw", "mapped-ram", "the default"),
        negotiated=left_to_libvirt(
            "mapped-ram", channels_asked=channels, bypass_cache_asked=None, cpu_count=4
        ),
        bypass_cache_proved=None,
        run_state_before="running",
        was_running=True,
        guest_state="stopped",
        verify="structure",
        replaces=None,
        at_most_bytes=size,
        free_bytes=10**9,
        warnings=(),
    )


def a_seen(name="web01", size=100, refusal=None, **wish):
    save = None if refusal else a_save_plan(name, size)
    guest = a_guest(name, size)
    return Seen(guest, Wish(name, **wish), f"/images/{name}.save", DEVICE, save, refusal)


def plan_of(seen, *, free=10**6, rate=None, cpu_count=2, **request):
    asked = SuspendRequest(store="/images", journal="/journal", **request)
    store = Store(DEVICE, "/images", free, rate)
    return make_plan(asked, seen, [store], [], cpu_count=cpu_count)


def actions(plan):
    return {one.guest.name: one.action for one in plan.guests}


def test_two_guests_that_a_journal_could_not_tell_apart_are_refused():
    twins = [a_seen("web01"), a_seen("web02")]
    twins[1] = replace(twins[1], guest=replace(twins[1].guest, uuid="web01"))
    with pytest.raises(Refused, match=r"web01 \(/run/web01\) and web02 \(/run/web02\).*Exclude"):
        plan_of(twins)


# One guest


@pytest.mark.parametrize("policy", [None, "fail", "leave", "shutdown", "save"])
@pytest.mark.parametrize(
    ("refusal", "room", "in_time", "expected"),
    [
        pytest.param(
            None,
            True,
            True,
            dict.fromkeys([None, "fail", "leave", "shutdown", "save"], "save"),
            id="nothing is in the way",
        ),
        pytest.param(
            "it has an nvme device",
            True,
            True,
            {
                None: "fail",
                "fail": "fail",
                "leave": "leave",
                "shutdown": "shutdown",
                "save": "fail",
            },
            id="cannot be saved",
        ),
        pytest.param(
            None,
            False,
            True,
            {
                None: "fail",
                "fail": "fail",
                "leave": "leave",
                "shutdown": "shutdown",
                "save": "save",
            },
            id="no room",
        ),
        pytest.param(
            None,
            True,
            False,
            {
                None: "fail",
                "fail": "fail",
                "leave": "leave",
                "shutdown": "shutdown",
                "save": "save",
            },
            id="no time",
        ),
    ],
)
def test_what_happens_to_a_guest_is_its_policys_to_say(refusal, room, in_time, expected, policy):
    one = a_seen(refusal=refusal, policy=policy)
    action, reason = decide(one, room=room, in_time=in_time)
    assert action == expected[policy]
    if refusal:
        assert reason.startswith(refusal)


# Limits


@pytest.mark.parametrize(
    ("asked", "cpu_count", "expected"),
    [
        (None, 1, Limits(2, 2)),
        (None, 4, Limits(4, 4)),
        (None, 64, Limits(8, 4)),
        (1, 64, Limits(1, 1)),
        (20, 2, Limits(20, 20)),
    ],
)
def test_how_many_at_once(asked, cpu_count, expected):
    assert choose_limits(asked, cpu_count) == expected


@pytest.mark.parametrize(
    ("request_options", "wish", "expected"),
    [
        pytest.param({"max_concurrent": 4}, {}, [2, 2, 2, 2], id="shared"),
        pytest.param(
            {"max_concurrent": 1}, {}, [None] * 4, id="alone each has what its own plan says"
        ),
        pytest.param(
            {"max_concurrent": 4, "defaults": {"parallel_channels": 6}},
            {},
            [None] * 4,
            id="asked for",
        ),
    ],
)
def test_processors_are_shared_between_those_that_are_saved_at_once(
    request_options, wish, expected
):
    plan = plan_of([a_seen(f"g{n}", **wish) for n in range(4)], cpu_count=8, **request_options)
    assert [one.channels for one in plan.guests] == expected


# Room and time


def test_who_does_not_fit_into_the_store_is_named_the_least_important_first():
    seen = [
        a_seen("large", 500, policy="leave"),
        a_seen("small", 100, policy="leave"),
        a_seen("dear", 400, policy="leave", priority=1),
    ]
    plan = plan_of(seen, free=520)
    assert actions(plan) == {"large": "leave", "small": "save", "dear": "save"}
    assert plan.needed_bytes(DEVICE) == 500
    assert "no room" in plan.guests[0].reason
    assert plan.problems == ()


def test_a_guest_that_does_not_fit_and_has_no_policy_stops_the_run():
    plan = plan_of([a_seen("large", 500), a_seen("small", 100)], free=520)
    assert [one.split(":")[0] for one in plan.problems] == ["large"]


def test_a_window_is_filled_by_what_the_store_has_shown():
    seen = [a_seen(f"g{number}", 100, policy="leave") for number in range(8)]
    plan = plan_of(seen, rate=50.0, window_seconds=10.5, max_concurrent=1)
    assert sorted(actions(plan).values()) == ["leave"] * 3 + ["save"] * 5
    assert plan.predicted_seconds == 10.0
    assert {one.predicted_seconds for one in plan.guests if one.action == "save"} == {2.0}


def test_a_guest_that_is_saved_later_than_the_window_leaves_no_time_to_others():
    seen = [a_seen("large", 400, policy="save"), a_seen("small", 100, policy="leave")]
    plan = plan_of(seen, rate=50.0, window_seconds=7, max_concurrent=1)
    assert actions(plan) == {"large": "save", "small": "leave"}
    assert "does not fit into the window" in plan.guests[0].reason


def test_without_a_measurement_nothing_is_predicted_and_nobody_left_out():
    plan = plan_of([a_seen("g0"), a_seen("g1")], window_seconds=1)
    assert set(actions(plan).values()) == {"save"}
    assert plan.predicted_seconds is None


def test_what_is_resident_bounds_an_image_more_tightly_than_all_ram():
    guest = a_guest(size=30)
    seen = Seen(guest, Wish("web01"), "/images/x", DEVICE, a_save_plan("web01", 1000))
    assert seen.at_most_bytes == 30


# Order


def test_guests_are_in_the_order_of_the_suspend():
    seen = [
        a_seen("db", depends_on=()),
        a_seen("web", depends_on=("db",)),
        a_seen("left", policy="leave", refusal="it cannot"),
    ]
    plan = plan_of(seen)
    tiers = [[one.guest.name for one in tier] for tier in plan.tiers()]
    assert tiers == [["web"], ["db"]]


def test_a_circle_is_refused():
    with pytest.raises(Refused, match="circle"):
        plan_of([a_seen("a", depends_on=("b",)), a_seen("b", depends_on=("a",))])


# Who competes


@pytest.mark.parametrize(
    ("blocks", "can_disable", "competing", "stops"),
    [
        (True, True, "refuse", True),
        (True, True, "disable", False),
        (True, False, "disable", True),
        (False, True, "refuse", False),
    ],
)
def test_who_competes_stops_the_run_unless_switched_off(blocks, can_disable, competing, stops):
    starter = Starter("kind", "name", "It starts guests", (), blocks, can_disable, "Stop it.")
    request = SuspendRequest(store="/images", journal="/journal", competing=competing)
    store = Store(DEVICE, "/images", 10**6, None)
    plan = make_plan(request, [a_seen()], [store], [starter], cpu_count=2)
    assert any("It starts guests. Stop it." in problem for problem in plan.problems) is stops


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web01", f"web01-{UUID}.save"),
        ("../../etc/passwd", f"etc_passwd-{UUID}.save"),
        ("name with blanks/und Umlaut ä", f"name_with_blanks_und_Umlaut-{UUID}.save"),
        ("...", f"guest-{UUID}.save"),
        ("x" * 400, f"{'x' * 150}-{UUID}.save"),
    ],
)
def test_an_images_name_stays_in_its_store(name, expected):
    assert image_path("/images", a_guest(name, uuid=UUID)) == f"/images/{expected}"


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], True),
        ([UUID.upper()], [], True),
        ([], [UUID], False),
        ([UUID[:8] + "*"], [], False),
        (["web*"], [], True),
        (["db*"], [], False),
        ([], ["web0?"], False),
        (["web01"], ["*01"], False),
        (["WEB*"], [], False),
    ],
)
def test_patterns(include, exclude, expected):
    assert selected("web01", UUID, include, exclude) is expected


def test_a_wish_is_found_by_name_and_by_uuid_and_is_said_once():
    guest = a_guest("web01", uuid=UUID)
    assert Wishes([Wish("web01", priority=3)]).of(guest).priority == 3
    assert Wishes([Wish(UUID, priority=4)]).of(guest).priority == 4
    assert Wishes([]).of(guest) == Wish("web01")
    assert Wishes([Wish("db")]).not_here([guest]) == ("db",)
    with pytest.raises(Refused, match="names web01 twice"):
        Wishes([Wish("web01"), Wish("web01")])
    with pytest.raises(Refused, match="by its name and by its UUID"):
        Wishes([Wish("web01"), Wish(UUID)]).of(guest)


# Single requests


def domain_guest():
    return a_guest(uuid=UUID, source=Source(uri="qemu:///system", domain="web01"))


def test_a_guest_behind_a_monitor_is_saved_over_it():
    request = SuspendRequest(store="/images", journal="/j", defaults={"image_version": 2})
    single = save_request(request, a_guest(uuid=UUID), Wish("web01", save={"image_version": 3}), 2)
    assert isinstance(single, SaveRequest)
    assert (single.path, single.qmp_socket) == (f"/images/web01-{UUID}.save", "/run/web01")
    assert (single.image_version, single.parallel_channels) == (3, 2)


def test_a_domain_is_saved_through_libvirt_by_its_uuid():
    request = SuspendRequest(store="/images", journal="/j", defaults={"timeout_seconds": 5})
    single = save_request(request, domain_guest(), Wish("web01"))
    assert isinstance(single, DomainSaveRequest)
    assert (single.domain, single.uri, single.timeout_seconds) == (UUID, "qemu:///system", 5)
    managed = save_request(request, domain_guest(), Wish("web01", save={"managed": True}))
    assert isinstance(managed, ManagedSaveRequest)


@pytest.mark.parametrize(
    ("guest", "options", "words"),
    [
        (domain_guest(), {"verify": "content"}, "asks for verify of web01"),
        (domain_guest(), {"managed": True, "image_version": 2}, "asks for image_version of web01"),
        (a_guest(), {"managed": True}, "which libvirt does not run"),
    ],
)
def test_an_option_that_does_not_go_with_libvirt_is_refused_by_name(guest, options, words):
    with pytest.raises(Refused, match=words):
        save_request(SuspendRequest(store="/i", journal="/j"), guest, Wish("web01", save=options))


@pytest.mark.parametrize(
    ("guest", "wish", "words"),
    [
        (domain_guest(), {"restore": {"load": "lazy"}}, "asks for load of web01"),
        (domain_guest(), {"restore": {"argv": ("qemu",)}}, "asks for argv of web01"),
        (
            domain_guest(),
            {"save": {"managed": True}, "restore": {"remove_image": True}},
            "asks for remove_image of web01",
        ),
    ],
)
def test_a_guest_that_no_resume_could_bring_back_is_not_suspended(guest, wish, words):
    wishes = Wishes([Wish("web01", **wish)])
    request = SuspendRequest(store="/images", journal="/j", wishes=wishes)
    (seen,) = asyncio.run(look_at(request, [guest], []))
    assert seen.save is None
    assert words in str(seen.refusal)


def test_how_long_a_managed_save_may_take_is_no_matter_of_its_restore():
    wish = Wish("web01", save={"managed": True}, restore={"timeout_seconds": 60})
    single = restore_request(domain_guest(), "", {}, wish, managed=True, run_state=None)
    assert isinstance(single, ManagedRestoreRequest)


def test_what_is_asked_for_all_guests_is_for_those_that_it_fits():
    request = SuspendRequest(store="/i", journal="/j", defaults={"max_bandwidth": 1})
    assert isinstance(save_request(request, domain_guest(), Wish("web01")), DomainSaveRequest)


@pytest.mark.parametrize(
    ("guest", "managed", "kind"),
    [
        (a_guest(), False, RestoreRequest),
        (domain_guest(), False, DomainRestoreRequest),
        (domain_guest(), True, ManagedRestoreRequest),
    ],
)
def test_a_guest_comes_back_the_way_it_went(guest, managed, kind):
    single = restore_request(guest, "/i", {}, Wish("web01"), managed=managed, run_state="paused")
    assert isinstance(single, kind)
    assert single.run_state == "paused"
