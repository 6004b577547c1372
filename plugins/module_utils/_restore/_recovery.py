# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What to do with a QEMU that a restore which died has touched: pure decisions.

docs/docsite/rst/killed.rst shows the table as the tests saw it.
"""

from __future__ import annotations

import enum

from .._errors import Refused
from .._qemu._bookmark import Bookmark
from .._qemu._run_states import migration_status_blocks
from ._plan import NEVER_RAN, WAITING

_FAILED = ("failed", "cancelled")


class Remedy(enum.Enum):
    """What the next restore does first."""

    NOTHING = "nothing"
    TIDY = "tidy"
    WAIT = "wait"
    FINISH = "finish"
    END = "end"


def decide(
    run_state: str,
    migration_status: str | None,
    bookmark: Bookmark | None,
    image_inode: int,
    *,
    started_by_us: bool,
) -> Remedy:
    """``bookmark``: what the dead run left in this QEMU; ``started_by_us``: the QEMU runs the very
    command line that this run would start.

    Raises `Refused` where the QEMU can neither be used nor be ended by us.
    """
    if bookmark is not None and bookmark.inode != image_inode and run_state != WAITING:
        raise Refused(
            f"This QEMU holds the guest of {bookmark.path}, whose restore was begun by a run that "
            "died. Run that restore again, or end this QEMU."
        )
    if run_state in NEVER_RAN and bookmark is not None:
        return Remedy.FINISH
    if run_state != WAITING:
        return Remedy.NOTHING
    if migration_status in _FAILED:
        if started_by_us:
            return Remedy.END
        raise Refused(
            "A load into this QEMU failed before, and it cannot be used for another try: end it "
            "and start a new one."
        )
    if migration_status_blocks(migration_status) is not None:
        if bookmark is not None:
            return Remedy.WAIT
        raise Refused("Another program is loading a guest into this QEMU.")
    return Remedy.NOTHING if bookmark is None else Remedy.TIDY
