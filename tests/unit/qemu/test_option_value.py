# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single keys of an option's value are changed, and the rest is left as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._command_line import keys_of
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._option_value import (
    edited,
    flat_keys,
    is_on,
)

NAMES = st.sampled_from(["id", "path", "size", "mode", "host"])
TEXTS = st.text("ab,=:/. ", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("qcow2,node-name=a", {"driver": "qcow2", "node-name": "a"}),
        ("driver=qcow2,file.filename=/a,,b", {"driver": "qcow2", "file.filename": "/a,b"}),
        ("qcow2,noro", {"driver": "qcow2", "ro": "off"}),
        (
            '{"driver": "raw", "file": {"filename": "/a", "on": true}, "list": [1, {"x": null}]}',
            {"driver": "raw", "file.filename": "/a", "file.on": "on"}
            | {"list.0": "1", "list.1.x": "None"},
        ),
    ],
    ids=str,
)
def test_both_notations_are_read_as_flat_keys(value: str, keys: dict[str, str]) -> None:
    assert flat_keys(value, "driver") == keys


@pytest.mark.parametrize("word", ["on", "yes", "true", "y"])
def test_every_word_for_on_counts(word: str) -> None:
    assert is_on({"x": word}, "x")
    assert not is_on({"x": "off"}, "x")
    assert not is_on({}, "x")


@pytest.mark.parametrize(
    ("value", "how", "result"),
    [
        ("a,id=x,b=1", {"drop": ("b",)}, "a,id=x"),
        ("a,id=x,b=1", {"keep": ("id",)}, "id=x"),
        ("a,id=x", {"put": {"type": "t"}}, "t,id=x"),
        ("id=x,type=a", {"put": {"type": "t"}}, "t,id=x"),
        ("a,p=1,q=2,p=3", {"drop": ("q",)}, "a,p=1,p=3"),
        ("a,p=1,q=2,p=3", {"put": {"p": "4,5"}}, "a,q=2,p=4,,5"),
        ("a,flag,nother", {"drop": ("flag",)}, "a,nother"),
        ("a,noflag", {"drop": ("flag",)}, "a"),
        ("a,path=/x,,y,id=z", {"drop": ("id",)}, "a,path=/x,,y"),
        ("a,addr.type=unix,addr.path=/x,id=z", {"drop": ("addr",)}, "a,id=z"),
        ('{"type": "a", "b": [1], "id": "x"}', {"drop": ("b",)}, '{"type": "a", "id": "x"}'),
        ('{"type": "a", "on": false}', {"put": {"on": "on"}}, '{"type": "a", "on": true}'),
    ],
    ids=str,
)
def test_keys_are_dropped_kept_and_put(value: str, how: dict[str, Any], result: str) -> None:
    assert edited(value, "type", **how) == result


@given(st.dictionaries(NAMES, TEXTS, min_size=1))
def test_what_is_not_named_reads_back_in_both_notations(keys: dict[str, str]) -> None:
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in keys.items())
    expected = {"type": "t", **keys}
    assert keys_of(edited(text, "type", put={"type": "t"}), "type") == expected
    assert flat_keys(edited(json.dumps(keys), "type", put={"type": "t"}), "type") == expected
