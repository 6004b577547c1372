# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the guests of a tier are stopped and saved, where both are only played."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from ansible_collections.vmfleet.suspend.plugins.module_utils._host import _saving
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._forecast import Limits
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._journal_file import (
    JournalWriter,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._new_journal import (
    entry_of,
    new_journal,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._requests import SuspendRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._run import Run
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._saving import Saving
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._space import Space
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._suspend import (
    Sight,
    _results,
    _units,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._together import all_of

from .test_plan import a_seen, plan_of


def test_a_group_stands_still_from_its_own_turn_on(tmp_path, monkeypatch):
    said = []

    async def pause(source):
        said.append(f"stop {source.qmp_socket}")
        return True

    async def save(_saving, plan):
        said.append(f"save {plan.guest.source.qmp_socket}")
        for _while in range(20):
            await asyncio.sleep(0.001)
        return True

    monkeypatch.setattr(_saving, "pause", pause)
    monkeypatch.setattr(Saving, "_save", save)
    seen = [a_seen("large", 500), a_seen("a", group="q"), a_seen("b", group="q"), a_seen("c", 50)]
    plan = plan_of(seen)
    request = SuspendRequest(store="/images", journal=str(tmp_path))
    journal = replace(new_journal(request), entries=tuple(map(entry_of, plan.guests)))

    async def suspended():
        writer = JournalWriter.create(str(tmp_path), journal)
        run = Run(writer, Limits(1, 1), time.monotonic())
        results = _results(Sight(None, plan, ()))
        run.results.update(zip([one.key for one in plan.guests], results, strict=True))
        try:
            saving = Saving(request, run, Space(plan, []), None)
            (tier,) = plan.tiers()
            return await all_of([saving.unit(unit) for unit in _units(tier)])
        finally:
            await writer.close()

    assert asyncio.run(suspended()) == [True, True, True]
    assert [words.replace("/run/", "") for words in said] == [
        "save large",
        "stop a",
        "stop b",
        "save a",
        "save b",
        "save c",
    ]
