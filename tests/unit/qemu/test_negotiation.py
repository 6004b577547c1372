# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Negotiation: asked x offered -> commands, and the way back."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._negotiation import (
    Ask,
    Negotiated,
    Offer,
    Step,
    negotiate,
)
from ansible_collections.vmfleet.suspend.tests.support.migration_rules import MigrationSettings
from ansible_collections.vmfleet.suspend.tests.support.offers import OFFER, RESTORE, SAVE, without
from ansible_collections.vmfleet.suspend.tests.support.qemu_replies import CAPABILITIES, PARAMETERS
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import QmpFailure


def run(settings: MigrationSettings, steps: t.Iterable[Step]) -> None:
    for step in steps:
        if step.command == "migrate-set-capabilities":
            settings.set_capabilities(step.arguments["capabilities"])
        else:
            settings.set_parameters(step.arguments)


def applied(negotiated: Negotiated, offer: Offer = OFFER) -> MigrationSettings:
    settings = MigrationSettings(dict(offer.capabilities), dict(offer.parameters))
    run(settings, negotiated.apply)
    return settings


# What is set.


@pytest.mark.parametrize("direction", ["save", "restore"])
@pytest.mark.parametrize(
    ("layout", "on"),
    [("mapped-ram", ("events", "mapped-ram", "multifd")), ("sequential", ("events",))],
)
def test_every_offered_capability_is_set_ours_on_and_all_others_off(
    direction: str, layout: str, on: tuple[str, ...]
) -> None:
    negotiated = negotiate(replace(SAVE, direction=direction, layout=layout), OFFER)
    (step,) = [s for s in negotiated.apply if s.command == "migrate-set-capabilities"]
    states = {entry["capability"]: entry["state"] for entry in step.arguments["capabilities"]}
    assert states == {name: name in on for name in CAPABILITIES}
    assert negotiated.capabilities_on == on


@pytest.mark.parametrize(
    ("ask", "parameters"),
    [
        (
            SAVE,
            {
                "max-bandwidth": 0,
                "zero-page-detection": "multifd",
                "multifd-channels": 2,
                "multifd-compression": "none",
                "direct-io": False,
                "tls-creds": "",
                "mode": "normal",
            },
        ),
        (
            replace(SAVE, layout="sequential", max_bandwidth_bytes=5_000_000),
            {
                "max-bandwidth": 5_000_000,
                "zero-page-detection": "multifd",
                "direct-io": False,
                "tls-creds": "",
                "mode": "normal",
            },
        ),
        (
            replace(RESTORE, channels=7, bypass_cache=True),
            {
                "multifd-channels": 7,
                "multifd-compression": "none",
                "direct-io": True,
                "tls-creds": "",
                "mode": "normal",
            },
        ),
        (
            replace(RESTORE, layout="sequential"),
            {"direct-io": False, "tls-creds": "", "mode": "normal"},
        ),
    ],
    ids=["save mapped-ram", "save sequential", "restore mapped-ram", "restore sequential"],
)
def test_parameters_are_set_by_direction_and_layout(
    ask: Ask, parameters: dict[str, object]
) -> None:
    (step,) = [s for s in negotiate(ask, OFFER).apply if s.command == "migrate-set-parameters"]
    assert step.arguments == parameters


def test_parameters_that_are_not_offered_are_not_set() -> None:
    offer = without(OFFER, "direct-io", "mode", "zero-page-detection")
    (step,) = [s for s in negotiate(SAVE, offer).apply if s.command == "migrate-set-parameters"]
    assert set(step.arguments) == {
        "max-bandwidth",
        "multifd-channels",
        "multifd-compression",
        "tls-creds",
    }


def test_multifd_is_on_even_for_one_channel() -> None:
    negotiated = negotiate(replace(SAVE, channels=1), OFFER)
    assert "multifd" in negotiated.capabilities_on
    assert applied(negotiated).parameters["multifd-channels"] == 1


def test_a_sticky_direct_io_is_switched_off_explicitly() -> None:
    offer = replace(OFFER, parameters={**PARAMETERS, "direct-io": True})
    assert applied(negotiate(SAVE, offer), offer).parameters["direct-io"] is False


# The order.


def commands(steps: t.Iterable[Step]) -> list[str]:
    return [step.command.replace("migrate-set-", "") for step in steps]


def test_a_fresh_qemu_gets_parameters_first_then_capabilities() -> None:
    assert commands(negotiate(SAVE, OFFER).apply) == ["parameters", "capabilities"]


@pytest.mark.parametrize("left_on", ["mapped-ram", "multifd"])
def test_what_can_block_parameters_is_switched_off_before_them(left_on: str) -> None:
    offer = replace(OFFER, capabilities={**CAPABILITIES, left_on: True})
    steps = negotiate(SAVE, offer).apply
    assert commands(steps) == ["capabilities", "parameters", "capabilities"]
    assert not any(entry["state"] for entry in steps[0].arguments["capabilities"])


def test_put_back_of_a_fresh_qemu_needs_no_third_command() -> None:
    assert commands(negotiate(SAVE, OFFER).put_back) == ["capabilities", "parameters"]


def test_put_back_ends_with_the_capabilities_that_were_on() -> None:
    offer = replace(OFFER, capabilities={**CAPABILITIES, "xbzrle": True})
    put_back = negotiate(SAVE, offer).put_back
    assert commands(put_back) == ["capabilities", "parameters", "capabilities"]


def test_nothing_offered_means_no_commands() -> None:
    negotiated = negotiate(replace(SAVE, layout="sequential"), Offer({}, {}))
    assert negotiated.apply == negotiated.put_back == ()


capability_changes = st.dictionaries(st.sampled_from(sorted(CAPABILITIES)), st.booleans())
parameter_changes = st.fixed_dictionaries(
    {},
    optional={
        "multifd-compression": st.sampled_from(["none", "zlib", "zstd"]),
        "tls-creds": st.sampled_from(["", "tls0"]),
        "direct-io": st.booleans(),
        "multifd-channels": st.integers(1, 255),
        "max-bandwidth": st.integers(0, 1 << 40),
        "zero-page-detection": st.sampled_from(["none", "legacy", "multifd"]),
        "mode": st.sampled_from(["normal", "cpr-reboot"]),
    },
)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    """A QEMU as an earlier user may have left it: reached by commands that QEMU accepts."""
    settings = MigrationSettings(dict(CAPABILITIES), dict(PARAMETERS))
    for change in draw(st.lists(st.one_of(capability_changes, parameter_changes), max_size=6)):
        with contextlib.suppress(QmpFailure):
            if set(change) <= set(CAPABILITIES):
                settings.set_capabilities(
                    [{"capability": name, "state": on} for name, on in change.items()]
                )
            else:
                settings.set_parameters(change)
    offer = Offer(settings.capabilities, settings.parameters)
    return without(offer, *draw(st.sets(st.sampled_from(["direct-io", "mode", "tls-hostname"]))))


asks = st.builds(
    Ask,
    direction=st.sampled_from(["save", "restore"]),
    layout=st.sampled_from(["mapped-ram", "sequential"]),
    channels=st.none(),
    bypass_cache=st.sampled_from([None, False]),
    max_bandwidth_bytes=st.none() | st.integers(1, 1 << 40),
    cpu_count=st.integers(1, 300),
    direct_io_proved=st.none(),
)


@given(ask=asks, offer=offers(), data=st.data())
def test_apply_is_accepted_and_any_part_of_it_is_put_back_exactly(
    ask: Ask, offer: Offer, data: st.DataObject
) -> None:
    negotiated = negotiate(ask, offer)
    after = applied(negotiated, offer)
    assert {name for name, on in after.capabilities.items() if on} == set(
        negotiated.capabilities_on
    )
    done = data.draw(st.integers(0, len(negotiated.apply)), label="steps of apply that were run")
    settings = MigrationSettings(dict(offer.capabilities), dict(offer.parameters))
    run(settings, negotiated.apply[:done])
    run(settings, negotiated.put_back)
    assert (settings.capabilities, settings.parameters) == (offer.capabilities, offer.parameters)
