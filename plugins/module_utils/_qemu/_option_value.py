# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Changing single keys of an option's value, in either notation, and leaving the rest as it is.

A value is ``first,key=value,key=value`` with commas doubled, where a key may be given several
times, or an object in JSON (QEMU util/qemu-option.c, util/keyval.c).
"""

from __future__ import annotations

import json
import re
import typing as t

from ._command_line import TRUE_WORDS, json_of, keys_of

_PART = re.compile(r"(?:,,|[^,])+")
_BOOLEANS: t.Mapping[str, bool] = {"on": True, "off": False}


def flat_keys(value: str, implied: str) -> dict[str, str]:
    """Every key and its text; what is nested in JSON has dotted keys, as in the other notation."""
    described = json_of(value)
    return keys_of(value, implied) if described is None else dict(_flattened(described, ""))


def _flattened(value: object, key: str) -> t.Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        members: t.Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        yield key, ("on" if value else "off") if isinstance(value, bool) else str(value)
        return
    for name, member in members:
        yield from _flattened(member, f"{key}.{name}" if key else str(name))


def is_on(keys: t.Mapping[str, str], key: str) -> bool:
    """Whether a switch is given, and is on."""
    return keys.get(key) in TRUE_WORDS


def edited(
    value: str,
    implied: str,
    *,
    keep: t.Container[str] | None = None,
    drop: t.Container[str] = (),
    put: t.Mapping[str, str] | None = None,
) -> str:
    """``value`` without the keys in ``drop`` (or only with those in ``keep``), and with those in
    ``put`` as given there; ``implied`` is the key whose name the first word goes without."""
    put = put or {}

    def stays(key: str) -> bool:
        first = key.partition(".")[0]
        return key not in put and first not in drop and (keep is None or first in keep)

    described = json_of(value)
    if described is not None:
        words = {key: _BOOLEANS.get(word, word) for key, word in put.items()}
        kept = {key: member for key, member in described.items() if stays(key)}
        return to_json({**kept, **words})
    parts = [
        (_key_of(part, index, implied), part) for index, part in enumerate(_PART.findall(value))
    ]
    texts = {key: word.replace(",", ",,") for key, word in put.items()}
    first = [texts.pop(implied)] if implied in texts else []
    left = [part for key, part in parts if stays(key)]
    return ",".join([*first, *left, *(f"{key}={text}" for key, text in texts.items())])


def _key_of(part: str, index: int, implied: str) -> str:
    key, equals, _value = part.partition("=")
    if equals:
        return key
    if index == 0 and implied:
        return implied
    return key[2:] if key.startswith("no") else key


def to_json(value: object) -> str:
    """JSON as QEMU reads it, in which bytes of an argument that are not UTF-8 stay themselves."""
    return json.dumps(value, ensure_ascii=False)
