# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What of a QEMU command line, and of what QEMU says, nobody may read in results, logs or diffs.

Two ways: values known from a command line are taken out of any text; and text that names a secret
by its shape loses it. Both hide too much rather than too little. Ids (``password-secret=``), file
names and switches (``-vnc :0,password=on``) are no secrets.
"""

from __future__ import annotations

import json
import re
import typing as t
from urllib.parse import unquote

from ._command_line import Option, json_of, options_of
from ._pairs import Pair, flat, pairs_of

HIDDEN = "[hidden]"
# What is shorter protects nothing, and a text without any of its letters would tell which it is.
SHORTEST = 3

_SWITCHES = ("on", "off", "yes", "no", "true", "false", "y", "n")
_NAMES = "password|passwd|passphrase|token|cookie|signature|key"
_SECRET_KEY = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
# A switch is none when it is followed by the end of its value.
_NO_SWITCH = rf"(?!(?:{'|'.join(_SWITCHES)})(?:[,\s]|$))"
# Keys of these options that hold what the guest is told, its credentials among it (systemd's).
_TOLD: t.Mapping[str, str] = {"fw_cfg": "string", "smbios": "value"}
_KERNEL_WORD = re.compile(r"(?:\"[^\"]*\"?|[^\s\"])+", re.ASCII)
_KERNEL_SECRET = re.compile(
    r"passw|passphrase|pwd|secret|token|credential|key(?!map|board|table)", re.IGNORECASE
)
_RBD_FIELD = re.compile(r"(?:[^\\:]|\\.)+", re.DOTALL)
_SECRET_OBJECT = re.compile(r"secret[\"',\\]")

_Pattern = t.Pattern[str]


def _shape(pattern: str) -> _Pattern:
    """A pattern whose group ``secret`` is to go. Blanks are those of ASCII: others are letters."""
    return re.compile(pattern, re.ASCII | re.DOTALL | re.IGNORECASE)


def _named(names: str) -> tuple[_Pattern, _Pattern]:
    """``name=value`` and ``"name": "value"``, the latter within other strings too, or cut off."""
    return (
        _shape(rf"(?:{names})={_NO_SWITCH}(?P<secret>(?:,,|[^,\s])+)"),
        _shape(
            rf"(?:{names})(?P<quote>\\*[\"'])\s*:\s*(?P=quote)"
            r"(?P<secret>.*?)(?:(?<!\\)(?P=quote)|$)"
        ),
    )


_SHAPES = (
    _shape(rf"[?&](?:[\w-]*(?:{_NAMES})|sig)=(?P<secret>[^&,\s]+)"),
    *_named(_NAMES),
    _shape(r"iscsi://[^\s/@%]*%(?P<secret>[^\s/]+)@"),
    _shape(r"://[^\s/?#@:]*:(?P<secret>[^\s/?#]+)@"),
)
_SHAPES_OF_SECRET_OBJECTS = (*_SHAPES, *_named("data"))


def hide(text: str, secrets: t.Iterable[str]) -> str:
    """``text`` without any character of an occurrence of a secret, those that overlap included.

    Hide before cutting a text short: half a secret is not recognised.
    """
    spans = sorted(
        span
        for secret in set(secrets)
        if len(secret) >= SHORTEST
        for span in _occurrences(text, secret)
    )
    pieces: list[str] = []
    shown_to = 0
    for start, end in spans:
        if start > shown_to or not pieces:
            pieces += [text[shown_to:start], HIDDEN]
        shown_to = max(shown_to, end)
    return "".join([*pieces, text[shown_to:]])


def _occurrences(text: str, secret: str) -> t.Iterator[tuple[int, int]]:
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + 1)


def hide_in(text: str) -> str:
    """``text`` without what its shape says is a secret: passwords in URLs, ``password=``, ``key=``
    and their kin, in QEMU's notations and in JSON. For what no command line told: file names of
    block nodes, messages of QEMU."""
    for shape in _shapes_for(text):
        text = shape.sub(_without_secret, text)
    return text


def _shapes_for(text: str) -> tuple[_Pattern, ...]:
    return _SHAPES_OF_SECRET_OBJECTS if _SECRET_OBJECT.search(text) else _SHAPES


def _without_secret(found: t.Match[str]) -> str:
    start, end = found.span("secret")
    whole, at = found.group(0), found.start()
    return whole[: start - at] + HIDDEN + whole[end - at :]


def secrets_in(argv: t.Sequence[str]) -> frozenset[str]:
    """Every value in ``argv``, program included, that is a secret, in each way it may be written:
    with doubled commas, as in JSON, with the percent signs of a URL resolved."""
    found: set[str] = set()
    for option in options_of(argv[1:]):
        text = option.value if option.value is not None else option.words[0]
        found.update(_by_option(option, text))
        for pair in [("", text), *pairs_of(text)]:
            found.update(_by_key(pair))
    return frozenset(form for secret in found for form in _forms(secret) if form)


def _by_option(option: Option, text: str) -> t.Iterator[str]:
    if option.name == "append":
        for word in _KERNEL_WORD.findall(text):
            key, _equals, value = word.strip('"').partition("=")
            if _KERNEL_SECRET.search(key):
                yield from _with_parts(value.strip('"'))
    elif option.name == "object":
        pairs = pairs_of(text, "qom-type")
        if dict(pairs).get("qom-type") == "secret":
            yield from (value for key, value in pairs if key == "data")
    else:
        told = _TOLD.get(option.name or "")
        for key, value in pairs_of(text):
            if key == told:
                yield from _with_parts(value)


def _with_parts(told: str) -> t.Iterator[str]:
    """A credential as it is given, and what is behind its name: ``name:value``, ``name=value``."""
    yield told
    yield told.partition(":")[2]
    yield told.partition("=")[2]


def _by_key(pair: Pair) -> t.Iterator[str]:
    key, value = pair
    if _SECRET_KEY.search(key) and value.lower() not in _SWITCHES:
        yield value
    yield from _by_shape(value)
    if value.startswith("rbd:"):
        yield from _of_rbd(value)
    nested = json_of(value[len("json:") :]) if value.startswith("json:") else None
    for inner in flat(nested):
        yield from _by_key(inner)


def _by_shape(text: str) -> t.Iterator[str]:
    for shape in _shapes_for(text):
        yield from (found.group("secret") for found in shape.finditer(text))


def _of_rbd(name: str) -> t.Iterator[str]:
    """``rbd:pool/image:key=value:...``, a backslash before colons within (QEMU block/rbd.c)."""
    for field in _RBD_FIELD.findall(name):
        key, _equals, value = field.partition("=")
        if _SECRET_KEY.search(key):
            yield value
            yield re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)


def _forms(secret: str) -> t.Iterator[str]:
    yield secret
    yield secret.replace(",", ",,")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield unquote(secret)
