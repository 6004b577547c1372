# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Negotiation: what was asked for, against what this QEMU offers, gives one list of commands.

Decided by what QEMU lists, never by its version number; versions appear in messages only.
Source: QEMU migration/options.c of 10.0, spec/qemu.md 2.3, 3.1 and 4.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import Refused
from .._measured import Measured

MAPPED_RAM = "mapped-ram"
SEQUENTIAL = "sequential"
SAVE = "save"
RESTORE = "restore"

MOST_CHANNELS = 255
_ENOUGH_CHANNELS = 4

# Capability -> layouts it is on for, in both directions. Every other capability that QEMU offers
# is switched off: one left on by an earlier user can park a save (pause-before-switchover), empty
# its image (background-snapshot) or change its format (x-ignore-shared).
_CAPABILITIES_ON: t.Mapping[str, tuple[str, ...]] = {
    "events": (MAPPED_RAM, SEQUENTIAL),
    "mapped-ram": (MAPPED_RAM,),
    # QEMU honours direct-io only with multifd, and one channel is already faster than none.
    "multifd": (MAPPED_RAM,),
}


@dataclass(frozen=True)
class Offer:
    """What a QEMU offers. ``capabilities``: name -> whether it is on now; ``parameters``: name as
    in QMP -> value now; ``migrate_incoming_exit_on_error``: migrate-incoming knows that argument.
    """

    capabilities: t.Mapping[str, bool]
    parameters: t.Mapping[str, object]
    migrate_incoming_exit_on_error: bool = False


@dataclass(frozen=True)
class Ask:
    """What was asked for. None means: decide.

    ``direction``: "save" or "restore"; ``layout``: "mapped-ram" or "sequential";
    ``direct_io_proved``: whether this program did O_DIRECT I/O on the image itself (False: the
    filesystem refused it; None: not tried); ``measured``: what decides where nothing was asked for.
    """

    direction: str
    layout: str
    channels: int | None
    bypass_cache: bool | None
    max_bandwidth_bytes: int | None
    cpu_count: int
    direct_io_proved: bool | None
    measured: Measured | None = None


@dataclass(frozen=True)
class Step:
    """One QMP command. ``command`` is migrate-set-capabilities or migrate-set-parameters."""

    command: str
    arguments: dict[str, t.Any]


@dataclass(frozen=True)
class Negotiated:
    """The outcome. ``channels`` is 0 for the sequential layout.

    ``apply`` and ``put_back`` are run in order; ``put_back`` undoes any beginning of ``apply``.
    ``reasons``: option name -> why it has its value; ``degraded``: sentences on what would have
    been preferred and is not there.
    """

    layout: str
    channels: int
    bypass_cache: bool
    capabilities_on: tuple[str, ...]
    apply: tuple[Step, ...]
    put_back: tuple[Step, ...]
    reasons: t.Mapping[str, str]
    degraded: tuple[str, ...]
    exit_on_error_supported: bool


@dataclass(frozen=True)
class _Decided:
    """What the values in the parameter table are computed from."""

    channels: int
    direct_io: bool
    max_bandwidth_bytes: int


@dataclass(frozen=True)
class _Parameter:
    """One row of the parameter table: where it is set, and to what."""

    name: str
    directions: tuple[str, ...]
    layouts: tuple[str, ...]
    value: t.Callable[[_Decided], object]


_BOTH = (SAVE, RESTORE)
_ANY = (MAPPED_RAM, SEQUENTIAL)

# Each is set only where QEMU offers it, and then always, whatever its value is now.
_PARAMETERS: tuple[_Parameter, ...] = (
    # 0 is unlimited; QEMU's default of 128 MiB/s is meant for networks.
    _Parameter("max-bandwidth", (SAVE,), _ANY, lambda d: d.max_bandwidth_bytes),
    # A value of "none" would write every zero page; machine types up to 8.2 default to "legacy".
    _Parameter("zero-page-detection", (SAVE,), _ANY, lambda d: "multifd"),
    _Parameter("multifd-channels", _BOTH, (MAPPED_RAM,), lambda d: d.channels),
    _Parameter("multifd-compression", _BOTH, (MAPPED_RAM,), lambda d: "none"),
    # Sticky in the process, and fatal for it when on without an O_DIRECT descriptor.
    _Parameter("direct-io", _BOTH, _ANY, lambda d: d.direct_io),
    _Parameter("tls-creds", _BOTH, _ANY, lambda d: ""),
    # The cpr modes leave RAM out of the stream.
    _Parameter("mode", _BOTH, _ANY, lambda d: "normal"),
)


def negotiate(ask: Ask, offer: Offer) -> Negotiated:
    """Plan the commands that prepare QEMU for this save or restore, and those that undo them.

    Raises `Refused` for what was asked for by name and this QEMU or filesystem does not have, or
    what does not go together.
    """
    _check_layout(ask, offer)
    channels, channels_reason = _decide_channels(ask, offer)
    bypass_cache, bypass_reason = _decide_bypass_cache(ask, offer)
    if ask.max_bandwidth_bytes is not None and "max-bandwidth" not in offer.parameters:
        raise Refused("max_bandwidth was asked for, but this QEMU has no parameter max-bandwidth.")
    direct_io = bypass_cache and ask.layout == MAPPED_RAM
    decided = _Decided(channels, direct_io, ask.max_bandwidth_bytes or 0)
    capabilities = {
        name: ask.layout in _CAPABILITIES_ON.get(name, ()) for name in offer.capabilities
    }
    parameters = {
        row.name: row.value(decided)
        for row in _PARAMETERS
        if row.name in offer.parameters
        and ask.direction in row.directions
        and ask.layout in row.layouts
    }
    return Negotiated(
        layout=ask.layout,
        channels=channels,
        bypass_cache=bypass_cache,
        capabilities_on=tuple(sorted(name for name, on in capabilities.items() if on)),
        apply=_apply_steps(offer, capabilities, parameters),
        put_back=_put_back_steps(offer, parameters),
        reasons={"parallel_channels": channels_reason, "bypass_cache": bypass_reason},
        degraded=_degraded(ask, offer),
        exit_on_error_supported=offer.migrate_incoming_exit_on_error,
    )


def put_back_everything(before: Offer) -> tuple[Step, ...]:
    """The commands that undo whatever any run may have set; ``before``: what was there before."""
    return _put_back_steps(
        before, {row.name: None for row in _PARAMETERS if row.name in before.parameters}
    )


def _check_layout(ask: Ask, offer: Offer) -> None:
    if ask.direction not in _BOTH or ask.layout not in _ANY:
        raise ValueError(f"no such direction or layout: {ask.direction}, {ask.layout}")
    if ask.layout == SEQUENTIAL:
        return
    for capability, needed in (("mapped-ram", "9.0"), ("multifd", "4.0")):
        if capability not in offer.capabilities:
            raise Refused(
                f"The layout mapped-ram needs the migration capability {capability}, which this "
                f"QEMU does not offer; it needs QEMU {needed} or newer. Images of version 2 with "
                "image_format raw need neither mapped-ram nor multifd."
            )


def _decide_channels(ask: Ask, offer: Offer) -> tuple[int, str]:
    if ask.layout == SEQUENTIAL:
        if ask.channels is not None:
            raise Refused(
                f"parallel_channels {ask.channels} does not go with the sequential layout, which "
                "is one stream. Leave parallel_channels out, or use an image with mapped-ram "
                "(image_version 3, or image_format sparse)."
            )
        return 0, "the sequential layout is one stream"
    if ask.channels is None and ask.measured is not None:
        return ask.measured.channels, ask.measured.why_channels
    if ask.channels is None:
        channels = max(1, min(ask.cpu_count, _ENOUGH_CHANNELS))
        return channels, (
            f"one per usable CPU of the host ({ask.cpu_count}), at most {_ENOUGH_CHANNELS}"
        )
    if not 1 <= ask.channels <= MOST_CHANNELS:
        raise Refused(
            f"parallel_channels must be between 1 and {MOST_CHANNELS}, not {ask.channels}."
        )
    if "multifd-channels" not in offer.parameters:
        raise Refused(
            "parallel_channels was asked for, but this QEMU has no parameter multifd-channels; "
            "it needs QEMU 4.0 or newer."
        )
    return ask.channels, "asked for"


def _decide_bypass_cache(ask: Ask, offer: Offer) -> tuple[bool, str]:
    if ask.bypass_cache is False:
        return False, "asked for"
    obstacle = _bypass_cache_obstacle(ask, offer)
    known = ask.measured
    if known is not None and ask.layout == SEQUENTIAL:
        known = known.one_stream
    if ask.bypass_cache is None and obstacle is None and known is not None:
        return known.bypass_cache, known.why_bypass_cache
    if ask.bypass_cache is None:
        return False, obstacle or "left off: not measured on this store"
    if obstacle is not None:
        raise Refused(f"bypass_cache was asked for, but {obstacle}.")
    if ask.direct_io_proved is None:
        return True, "asked for; O_DIRECT was not tried on this filesystem yet"
    return True, "asked for; the filesystem does O_DIRECT"


def _bypass_cache_obstacle(ask: Ask, offer: Offer) -> str | None:
    # A sequential stream goes through our own pump, which needs nothing of QEMU.
    if ask.layout == MAPPED_RAM and "direct-io" not in offer.parameters:
        return "this QEMU has no migration parameter direct-io; it needs QEMU 9.1 or newer"
    if ask.direct_io_proved is False:
        return "the filesystem that holds the image refuses O_DIRECT"
    return None


def _degraded(ask: Ask, offer: Offer) -> tuple[str, ...]:
    sentences = []
    if "events" not in offer.capabilities:
        sentences.append("This QEMU sends no migration events; its progress is polled instead.")
    if ask.direction == RESTORE and not offer.migrate_incoming_exit_on_error:
        sentences.append(
            "This QEMU ends itself when a load fails (exit-on-error needs QEMU 9.1 or newer)."
        )
    return tuple(sentences)


def _apply_steps(
    offer: Offer, capabilities: t.Mapping[str, bool], parameters: dict[str, object]
) -> tuple[Step, ...]:
    steps = []
    if _traps_parameters(offer):
        steps.append(_all_off(offer))
    if parameters:
        steps.append(Step("migrate-set-parameters", dict(parameters)))
    if capabilities:
        steps.append(_set_capabilities(capabilities))
    return tuple(steps)


def _put_back_steps(offer: Offer, parameters: t.Mapping[str, object]) -> tuple[Step, ...]:
    # Everything off first, so that no combination on the way is one that QEMU refuses: with
    # mapped-ram on, a parameter that was put back could never be followed by another.
    steps = [_all_off(offer)] if offer.capabilities else []
    before = {name: offer.parameters[name] for name in parameters}
    if before:
        steps.append(Step("migrate-set-parameters", before))
    if any(offer.capabilities.values()):
        steps.append(_set_capabilities(offer.capabilities))
    return tuple(steps)


def _traps_parameters(offer: Offer) -> bool:
    """Whether migrate-set-parameters may be stuck: while mapped-ram is on and compression or TLS
    are set, QEMU refuses every call, even the one that would reset them (spec/qemu.md 3.1)."""
    return any(offer.capabilities.get(name, False) for name in ("mapped-ram", "multifd"))


def _all_off(offer: Offer) -> Step:
    return _set_capabilities({name: False for name in offer.capabilities})


def _set_capabilities(states: t.Mapping[str, bool]) -> Step:
    entries = [{"capability": name, "state": on} for name, on in states.items()]
    return Step("migrate-set-capabilities", {"capabilities": entries})
