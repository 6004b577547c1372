# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What a run leaves in QEMU itself while it works, so that another run can tell what to undo.

The image's fdset carries a text (``opaque`` of add-fd) that lives and dies with QEMU: which image,
and what the guest was like before. QEMU up to 9.0 closes the fdsets of a running guest when its
last client leaves, and may cut the beginning off the image that it writes (spec/qemu.md 4): while
the guest is stopped one of the two is always there.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import asdict, dataclass

from ._monitor import Monitor
from ._negotiation import Offer

SAVE = "save"
RESTORE = "restore"
_TAG = "vmfleet.suspend "


@dataclass(frozen=True)
class StateBefore:
    """A guest's run state and migration settings before a run touched them."""

    run_state: str
    capabilities: t.Mapping[str, bool]
    parameters: t.Mapping[str, object]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "run_state": self.run_state,
            "capabilities": dict(self.capabilities),
            "parameters": dict(self.parameters),
        }

    @classmethod
    def from_dict(cls, data: object) -> StateBefore | None:
        """What `as_dict` wrote, or None when ``data`` is not that."""
        if not isinstance(data, dict):
            return None
        run_state, capabilities = data.get("run_state"), data.get("capabilities")
        parameters = data.get("parameters")
        if not (
            isinstance(run_state, str)
            and isinstance(capabilities, dict)
            and isinstance(parameters, dict)
        ):
            return None
        return cls(run_state, capabilities, parameters)

    def offer(self, now: Offer) -> Offer:
        """``now`` with the settings of before, as far as this QEMU has them."""
        return Offer(
            capabilities={k: v for k, v in self.capabilities.items() if k in now.capabilities},
            parameters={k: v for k, v in self.parameters.items() if k in now.parameters},
            migrate_incoming_exit_on_error=now.migrate_incoming_exit_on_error,
        )


@dataclass(frozen=True)
class Bookmark:
    """``doing``: save or restore; ``path``: the image as it was called when QEMU got it."""

    doing: str
    path: str
    inode: int
    before: StateBefore

    def matches(self, inode: int, name: str) -> bool:
        """Whether it is about the file with this inode that is, or was, called ``name``."""
        return (self.inode, os.path.basename(self.path)) == (inode, name)

    def text(self) -> str:
        """What add-fd takes as ``opaque``."""
        return _TAG + json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Bookmark | None:
        """The bookmark in ``text``; None for other people's descriptors."""
        if not text.startswith(_TAG):
            return None
        try:
            data = json.loads(text[len(_TAG) :])
        except ValueError:
            return None
        if not isinstance(data, dict):
            return None
        doing, path, inode = data.get("doing"), data.get("path"), data.get("inode")
        before = StateBefore.from_dict(data.get("before"))
        if before is None or not isinstance(path, str) or not isinstance(inode, int):
            return None
        return cls(doing, path, inode, before) if doing in (SAVE, RESTORE) else None


@dataclass(frozen=True)
class Found:
    """A bookmark and the fdset that carries it."""

    fdset_id: int
    bookmark: Bookmark


async def find_bookmarks(monitor: Monitor) -> tuple[Found, ...]:
    """Every fdset in this QEMU that a run of this collection left or still uses."""
    found = []
    for fdset in await monitor.execute("query-fdsets"):
        texts = (fd.get("opaque", "") for fd in fdset["fds"])
        marks = [mark for mark in map(Bookmark.parse, texts) if mark is not None]
        if marks:
            found.append(Found(fdset["fdset-id"], marks[0]))
    return tuple(found)
