# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Negotiation: what is decided for options left out, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._negotiation import (
    Ask,
    Offer,
    negotiate,
)
from ansible_collections.vmfleet.suspend.tests.support.offers import OFFER, RESTORE, SAVE, without


@pytest.mark.parametrize(
    ("cpu_count", "channels"), [(0, 1), (1, 1), (2, 2), (4, 4), (5, 4), (512, 4)]
)
def test_channels_left_out_follow_the_cpus_up_to_four(cpu_count: int, channels: int) -> None:
    negotiated = negotiate(replace(SAVE, cpu_count=cpu_count), OFFER)
    assert negotiated.channels == channels
    assert f"({cpu_count})" in negotiated.reasons["parallel_channels"]


@pytest.mark.parametrize("channels", [1, 255])
def test_channels_asked_for_are_taken_whatever_the_cpus(channels: int) -> None:
    negotiated = negotiate(replace(SAVE, channels=channels), OFFER)
    assert (negotiated.channels, negotiated.reasons["parallel_channels"]) == (channels, "asked for")


def test_the_sequential_layout_has_no_channels() -> None:
    assert negotiate(replace(SAVE, layout="sequential"), OFFER).channels == 0


@pytest.mark.parametrize(
    ("ask", "offer", "reason"),
    [
        (SAVE, OFFER, "not measured on this store"),
        (replace(SAVE, direct_io_proved=False), OFFER, "refuses O_DIRECT"),
        (SAVE, without(OFFER, "direct-io"), "9.1"),
        (replace(SAVE, bypass_cache=False), OFFER, "asked for"),
    ],
)
def test_bypass_cache_stays_off_with_its_reason(ask: Ask, offer: Offer, reason: str) -> None:
    negotiated = negotiate(ask, offer)
    assert negotiated.bypass_cache is False
    assert reason in negotiated.reasons["bypass_cache"]


@pytest.mark.parametrize(("proved", "reason"), [(True, "does O_DIRECT"), (None, "not tried")])
def test_bypass_cache_asked_for_is_on_and_says_whether_it_was_proved(
    proved: bool | None, reason: str
) -> None:
    negotiated = negotiate(replace(SAVE, bypass_cache=True, direct_io_proved=proved), OFFER)
    assert negotiated.bypass_cache is True
    assert any(step.arguments.get("direct-io") is True for step in negotiated.apply)
    assert reason in negotiated.reasons["bypass_cache"]


@pytest.mark.parametrize(
    ("ask", "offer", "words"),
    [
        (SAVE, without(OFFER, "mapped-ram"), "mapped-ram.*QEMU 9.0"),
        (SAVE, without(OFFER, "multifd"), "multifd.*QEMU 4.0"),
        (replace(SAVE, channels=2), without(OFFER, "multifd-channels"), "QEMU 4.0"),
        (replace(SAVE, bypass_cache=True), without(OFFER, "direct-io"), "QEMU 9.1"),
        (
            replace(SAVE, bypass_cache=True, direct_io_proved=False),
            OFFER,
            "filesystem .* refuses O_DIRECT",
        ),
        (replace(SAVE, layout="sequential", channels=2), OFFER, "parallel_channels 2 .*sequential"),
        (
            replace(SAVE, layout="sequential", bypass_cache=True, direct_io_proved=False),
            OFFER,
            "filesystem .* refuses O_DIRECT",
        ),
        (replace(SAVE, channels=0), OFFER, "between 1 and 255, not 0"),
        (replace(SAVE, channels=256), OFFER, "between 1 and 255, not 256"),
        (
            replace(SAVE, max_bandwidth_bytes=1),
            without(OFFER, "max-bandwidth"),
            "max_bandwidth was asked for",
        ),
    ],
)
def test_what_was_asked_for_by_name_and_is_missing_is_refused(
    ask: Ask, offer: Offer, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        negotiate(ask, offer)


def test_a_sequential_save_needs_no_new_qemu() -> None:
    old = without(OFFER, "mapped-ram", "multifd", "direct-io", "mode", "zero-page-detection")
    assert negotiate(replace(SAVE, layout="sequential"), old).capabilities_on == ("events",)


@pytest.mark.parametrize(
    ("ask", "offer", "words"),
    [
        (SAVE, without(OFFER, "events"), ["polled"]),
        (RESTORE, replace(OFFER, migrate_incoming_exit_on_error=False), ["exit-on-error"]),
        (SAVE, replace(OFFER, migrate_incoming_exit_on_error=False), []),
        (SAVE, OFFER, []),
        (RESTORE, OFFER, []),
    ],
)
def test_what_is_only_preferred_degrades_and_says_so(
    ask: Ask, offer: Offer, words: list[str]
) -> None:
    degraded = negotiate(ask, offer).degraded
    assert len(degraded) == len(words)
    assert all(word in sentence for word, sentence in zip(words, degraded, strict=True))


@pytest.mark.parametrize("supported", [True, False])
def test_exit_on_error_is_passed_on(supported: bool) -> None:
    offer = replace(OFFER, migrate_incoming_exit_on_error=supported)
    assert negotiate(RESTORE, offer).exit_on_error_supported is supported


def test_a_sequential_stream_bypasses_the_cache_without_qemus_direct_io():
    outcome = negotiate(replace(SAVE, layout="sequential", bypass_cache=True), OFFER)
    assert outcome.bypass_cache is True
    (parameters,) = (
        step.arguments for step in outcome.apply if step.command == "migrate-set-parameters"
    )
    assert parameters["direct-io"] is False
