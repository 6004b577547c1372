# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""How libvirt moves a domain's RAM: channels and cache. What goes with them it sets in QEMU itself,
so there is nothing to negotiate step by step."""

from __future__ import annotations

from ._errors import Refused
from ._qemu._negotiation import MAPPED_RAM, MOST_CHANNELS, Negotiated

_ENOUGH_CHANNELS = 4


def left_to_libvirt(
    layout: str,
    *,
    channels_asked: int | None,
    bypass_cache_asked: bool | None,
    cpu_count: int,
    may_choose: bool = True,
) -> Negotiated:
    """``may_choose``: this libvirt can be told how many channels. Raises `Refused`."""
    if channels_asked is not None and not 1 <= channels_asked <= MOST_CHANNELS:
        raise Refused(
            f"parallel_channels is a number from 1 to {MOST_CHANNELS}, not {channels_asked}."
        )
    mapped = layout == MAPPED_RAM
    preferred = min(cpu_count, _ENOUGH_CHANNELS) if may_choose else 1
    return Negotiated(
        layout=layout,
        channels=(channels_asked or preferred) if mapped else 0,
        bypass_cache=bool(bypass_cache_asked),
        capabilities_on=("mapped-ram", "multifd") if mapped else (),
        apply=(),
        put_back=(),
        reasons={
            "bypass_cache": "libvirt's default" if bypass_cache_asked is None else "asked for",
            "parallel_channels": "asked for"
            if channels_asked
            else f"one for each of {cpu_count} processors, at most {_ENOUGH_CHANNELS}"
            if mapped and may_choose
            else "one stream",
        },
        degraded=(),
        exit_on_error_supported=False,
    )
