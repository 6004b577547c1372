# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How libvirt moves a domain's RAM: channels and cache. What goes with them it sets in QEMU itself,
so there is nothing to negotiate step by step."""

from __future__ import annotations

from ._errors import Refused
from ._measured import Measured
from ._qemu._negotiation import MAPPED_RAM, MOST_CHANNELS, Negotiated

_ENOUGH_CHANNELS = 4


def left_to_libvirt(
    layout: str,
    *,
    channels_asked: int | None,
    bypass_cache_asked: bool | None,
    cpu_count: int,
    may_choose: bool = True,
    measured: Measured | None = None,
    direct_io: bool = True,
) -> Negotiated:
    """``may_choose``: this libvirt can be told how many channels; ``measured``: what decides where
    nothing was asked for, of a sparse image; ``direct_io``: QEMU has that parameter, without which
    libvirt can move no sparse image past the cache. Raises `Refused`."""
    if channels_asked is not None and not 1 <= channels_asked <= MOST_CHANNELS:
        raise Refused(
            f"parallel_channels is a number from 1 to {MOST_CHANNELS}, not {channels_asked}."
        )
    mapped = layout == MAPPED_RAM
    known = measured if mapped and direct_io else None
    if known is not None and not may_choose:
        known = known.one_stream
    preferred, why = 1, "one stream"
    if mapped and may_choose:
        preferred = known.channels if known else min(cpu_count, _ENOUGH_CHANNELS)
        usual = f"one for each of {cpu_count} processors, at most {_ENOUGH_CHANNELS}"
        why = known.why_channels if known else usual
    bypass_cache, why_cache = bool(bypass_cache_asked), "asked for"
    if bypass_cache_asked is None:
        bypass_cache = known.bypass_cache if known else False
        why_cache = known.why_bypass_cache if known else "libvirt's default"
        if mapped and measured is not None and not direct_io:
            why_cache = "left off: QEMU here lacks direct-io"
    return Negotiated(
        layout=layout,
        channels=(channels_asked or preferred) if mapped else 0,
        bypass_cache=bypass_cache,
        capabilities_on=("mapped-ram", "multifd") if mapped else (),
        apply=(),
        put_back=(),
        reasons={
            "bypass_cache": why_cache,
            "parallel_channels": "asked for" if channels_asked else why,
        },
        degraded=(),
        exit_on_error_supported=False,
    )
