# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An option's value is read in either of QEMU's notations, with every key it has."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._pairs import pairs_of


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("socket,id=c", [("type", "socket"), ("id", "c")]),
        ("type=socket,id=c", [("type", "socket"), ("id", "c")]),
        ("id=c,socket", [("id", "c"), ("socket", "on")]),
        ("socket,server,nowait", [("type", "socket"), ("server", "on"), ("wait", "off")]),
        ("user,fwd=a,fwd=b", [("type", "user"), ("fwd", "a"), ("fwd", "b")]),
        ("path=a,,b=c,,", [("path", "a,b=c,")]),
        ("path=", [("path", "")]),
        ("", []),
        (
            '{"type": "user", "ipv6": false, "n": 1}',
            [("type", "user"), ("ipv6", "off"), ("n", "1")],
        ),
        (
            '{"addr": {"type": "unix", "abstract": true}}',
            [("addr.type", "unix"), ("addr.abstract", "on")],
        ),
        ('{"fwd": [{"str": "a"}, {"str": "b"}], "x": null}', [("fwd.str", "a"), ("fwd.str", "b")]),
    ],
)
def test_keys_are_told_in_order_and_as_often_as_given(
    text: str, pairs: list[tuple[str, str]]
) -> None:
    assert pairs_of(text, "type") == pairs


def test_without_an_implied_key_a_first_bare_word_is_a_switch() -> None:
    assert pairs_of("server,nowait") == [("server", "on"), ("wait", "off")]
