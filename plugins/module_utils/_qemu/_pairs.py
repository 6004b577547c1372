# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Every key of an option's value, whichever of QEMU's notations it is written in.

``socket,id=a,server=on``, or the same in JSON. Unlike `keys_of` it keeps keys that are given
several times (``hostfwd=``), and reads nested ones.
"""

from __future__ import annotations

import re
import typing as t

from ._command_line import json_of

Pair = t.Tuple[str, str]


def pairs_of(text: str, implied: str | None = None) -> list[Pair]:
    """Keys and values in order, nested keys joined by dots; lists give their key repeatedly.

    ``implied``: the key of a first word without one (QEMU util/qemu-option.c, util/keyval.c).
    """
    nested = json_of(text)
    if nested is not None:
        return list(flat(nested))
    pairs: list[Pair] = []
    for part in re.findall(r"(?:,,|[^,])+", text):
        key, equals, value = part.replace(",,", ",").partition("=")
        if equals:
            pairs.append((key, value))
        elif not pairs and implied is not None:
            pairs.append((implied, key))
        elif key.startswith("no"):
            pairs.append((key[2:], "off"))
        else:
            pairs.append((key, "on"))
    return pairs


def flat(value: object, key: str = "") -> t.Iterator[Pair]:
    """The leaves of a value that came from JSON, true and false as on and off."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from flat(inner, key)
    elif isinstance(value, bool):
        yield key, "on" if value else "off"
    elif value is not None:
        yield key, str(value)
