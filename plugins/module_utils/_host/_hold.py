# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The hold: guests of a host that is in maintenance are not resumed by the host itself.

The journal says until when; whoever resumes the host releases it earlier.
"""

from __future__ import annotations

import datetime

from ._journal import Journal
from ._journal_file import JournalWriter, open_journal, read_journals
from ._options import require_time


def held_seconds(journal: Journal | None, now: datetime.datetime) -> float:
    """How long guests of this journal are still held; 0.0 for none.

    By the clock of the wall, which may be set meanwhile: to be asked again and again. Raises
    `Refused` for a time that cannot be read.
    """
    if journal is None or journal.released or journal.hold_until is None:
        return 0.0
    return max(0.0, (require_time("hold_until", journal.hold_until) - now).total_seconds())


def now() -> datetime.datetime:
    """The time of this host's clock."""
    return datetime.datetime.now(datetime.timezone.utc)


async def release(directory: str, store: str) -> Journal | None:
    """End the hold of the open journal; that journal as it is then, None without one.

    Raises `AnotherRun` while another run writes it, `StoreError`, `JournalInvalid`.
    """
    journal = open_journal(read_journals(directory), store)
    if journal is None or journal.released:
        return journal
    writer = JournalWriter.resume(directory, journal)
    try:
        await writer.note(released=True)
        return writer.journal
    finally:
        await writer.close()
