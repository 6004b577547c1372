# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many guests at once."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._together import all_of


async def fails(words):
    await asyncio.sleep(0)
    raise ValueError(words)


async def ends(ended):
    await asyncio.sleep(0.01)
    ended.append(True)


def test_where_several_fail_all_come_to_their_end_the_first_is_told_and_nothing_is_printed(
    capsys, caplog
):
    ended: list[bool] = []

    async def run():
        with pytest.raises(ValueError, match="one"):
            await all_of([fails("one"), ends(ended), fails("two")])
        gc.collect()

    asyncio.run(run())
    assert ended == [True]
    assert (caplog.records, capsys.readouterr().err) == ([], "")
