# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The journal of a suspend as values: who is how far, and which step may follow which."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field, replace

from .._errors import VmfleetError
from .._qemu._process import ProcessIdentity
from ._guests import Source

FORMAT = 1
# What may follow each state. Any may be entered again: a second run says the same.
FOLLOWS: t.Mapping[str, frozenset[str]] = {
    # A later run finds that the save was finished, or the guest gone.
    "planned": frozenset(
        {"saving", "saved", "left", "shutdown", "failed", "crashed", "running", "restoring"}
    ),
    # Back to planned: it was interrupted, undone, and is to be tried again.
    "saving": frozenset({"planned", "saved", "failed", "crashed", "running", "restoring"}),
    # Planned again: somebody else started the guest, and a new suspend saves it anew.
    "saved": frozenset({"verified", "restoring", "running", "planned", "crashed"}),
    "verified": frozenset({"restoring", "running", "planned", "crashed"}),
    # Saved or verified again: the restore failed, and the image is whole.
    "restoring": frozenset({"running", "saved", "verified", "failed", "planned", "crashed"}),
    "running": frozenset({"planned", "failed"}),
    "failed": frozenset({"planned", "left", "shutdown", "saved"}),
    "left": frozenset({"planned", "shutdown"}),
    # Started anew since, and found running by a later suspend.
    "shutdown": frozenset({"planned"}),
    "crashed": frozenset({"planned"}),
}
# In these nothing of ours keeps the vCPUs from running.
_NOT_HELD = ("running", "crashed")


class JournalInvalid(VmfleetError):
    """A journal that cannot be read: damaged, or of another version. Names the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The journal {path} cannot be used: {reason}. It was left as it is. It tells which "
            "guests of this host are saved where; look into it before you move it away.",
            path=path,
        )
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """One guest. ``path``: its image; ``was_running``: before anything was done; ``held``: we
    stopped its vCPUs ourselves, ahead of its save; ``options``: of its single restore; ``process``:
    the QEMU that it ran in; ``bytes``: what the image occupies; ``stale_image``: an older image
    that must not be restored; ``changed_at``: ISO 8601."""

    key: str
    name: str
    uuid: str | None
    source: Source
    path: str
    state: str = "planned"
    was_running: bool | None = None
    held: bool = False
    group: str | None = None
    priority: int = 0
    depends_on: tuple[str, ...] = ()
    policy: str | None = None
    options: t.Mapping[str, t.Any] = field(default_factory=dict)
    process: ProcessIdentity | None = None
    predicted_seconds: float | None = None
    actual_seconds: float | None = None
    bytes: int | None = None
    reason: str | None = None
    stale_image: str | None = None
    boot_id: str | None = None
    changed_at: str | None = None

    def moved(self, state: str, **changes: t.Any) -> Entry:
        """The entry in another state. Raises ValueError for a step that may not be."""
        if state != self.state and state not in FOLLOWS[self.state]:
            raise ValueError(f"{self.name} cannot go from {self.state} to {state}")
        if state in _NOT_HELD:
            changes["held"] = False
        return replace(self, state=state, **changes)

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it: without options, which may hold a command line's secrets."""
        known = self.as_json()
        for private in ("options", "process", "boot_id"):
            del known[private]
        source = known.pop("source")
        return {**known, **source}

    def as_json(self) -> dict[str, t.Any]:
        """As the file holds it."""
        data = asdict(self)
        data["source"] = self.source.as_dict()
        data["options"] = {key: _plain(value) for key, value in self.options.items()}
        return data


@dataclass(frozen=True)
class Journal:
    """One suspend. ``competing``: what was switched off, as records that say how to put it back;
    ``closed``: None while it is open, else resumed or rolled back. Times in ISO 8601."""

    id: str
    created: str
    collection_version: str
    store: str
    hold_until: str | None = None
    released: bool = False
    competing: tuple[t.Mapping[str, t.Any], ...] = ()
    closed: str | None = None
    entries: tuple[Entry, ...] = ()

    def entry(self, key: str) -> Entry:
        """The guest of this key. Raises KeyError."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        raise KeyError(key)

    def with_entries(self, changed: t.Iterable[Entry]) -> Journal:
        """The journal with these in place of those of the same keys, new ones behind."""
        by_key = {entry.key: entry for entry in self.entries}
        by_key.update((entry.key, entry) for entry in changed)
        return replace(self, entries=tuple(by_key.values()))

    def as_dict(self) -> dict[str, t.Any]:
        """As modules return it."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            counts[entry.state] = counts.get(entry.state, 0) + 1
        return {
            "id": self.id,
            "created": self.created,
            "store": self.store,
            "hold_until": self.hold_until,
            "released": self.released,
            "closed": self.closed,
            "competing": [dict(record) for record in self.competing],
            "states": counts,
            "guests": [entry.as_dict() for entry in self.entries],
        }

    def as_json(self) -> dict[str, t.Any]:
        """As the file holds it."""
        return {
            "format": FORMAT,
            **{
                name: getattr(self, name)
                for name in (
                    "id",
                    "created",
                    "collection_version",
                    "store",
                    "hold_until",
                    "released",
                    "closed",
                )
            },
            "competing": [dict(record) for record in self.competing],
            "entries": [entry.as_json() for entry in self.entries],
        }


def _plain(value: t.Any) -> t.Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else value


# Fields of an entry and their types in the file; None is always allowed where it is the default.
_ENTRY_TYPES: t.Mapping[str, tuple[type, ...]] = {
    "key": (str,),
    "name": (str,),
    "uuid": (str, type(None)),
    "source": (dict,),
    "path": (str,),
    "state": (str,),
    "was_running": (bool, type(None)),
    "held": (bool,),
    "group": (str, type(None)),
    "priority": (int,),
    "depends_on": (list,),
    "policy": (str, type(None)),
    "options": (dict,),
    "process": (dict, type(None)),
    "predicted_seconds": (int, float, type(None)),
    "actual_seconds": (int, float, type(None)),
    "bytes": (int, type(None)),
    "reason": (str, type(None)),
    "stale_image": (str, type(None)),
    "boot_id": (str, type(None)),
    "changed_at": (str, type(None)),
}
_JOURNAL_TYPES: t.Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "created": (str,),
    "collection_version": (str,),
    "store": (str,),
    "hold_until": (str, type(None)),
    "released": (bool,),
    "competing": (list,),
    "closed": (str, type(None)),
    "entries": (list,),
}


def parse(data: object, path: str) -> Journal:
    """The journal that a file holds. Raises `JournalInvalid` naming the field."""
    if not isinstance(data, dict):
        raise JournalInvalid(path, "it holds no JSON object")
    if data.get("format") != FORMAT:
        raise JournalInvalid(
            path,
            f"it is of format {data.get('format')!r}, written by version "
            f"{data.get('collection_version', 'unknown')} of this collection, and this version "
            f"reads format {FORMAT}. Use that version to resume",
        )
    fields = _fields(data, _JOURNAL_TYPES, path, "")
    entries = []
    for number, raw in enumerate(fields.pop("entries")):
        where = f"entries[{number}]."
        if not isinstance(raw, dict):
            raise JournalInvalid(path, f"{where[:-1]} is no object")
        entry = _fields(raw, _ENTRY_TYPES, path, where)
        if entry["state"] not in FOLLOWS:
            raise JournalInvalid(path, f"{where}state is {entry['state']!r}")
        entry["source"] = Source(
            **{name: entry["source"].get(name) for name in ("qmp_socket", "uri", "domain")}
        )
        entry["process"] = ProcessIdentity.from_dict(entry["process"])
        entry["depends_on"] = tuple(entry["depends_on"])
        entry["options"] = _options(entry["options"])
        entries.append(Entry(**entry))
    keys = [entry.key for entry in entries]
    if len(set(keys)) != len(keys):
        raise JournalInvalid(path, "it tells of one guest twice")
    if fields["closed"] not in (None, "resumed", "rolled back"):
        raise JournalInvalid(path, f"closed is {fields['closed']!r}")
    if not all(isinstance(record, dict) for record in fields["competing"]):
        raise JournalInvalid(path, "competing holds something else than records")
    fields["competing"] = tuple(fields["competing"])
    return Journal(entries=tuple(entries), **fields)


def _fields(
    data: t.Mapping[str, t.Any], types: t.Mapping[str, tuple[type, ...]], path: str, where: str
) -> dict[str, t.Any]:
    for name, allowed in types.items():
        if name not in data:
            raise JournalInvalid(path, f"{where}{name} is missing")
        if not isinstance(data[name], allowed):
            raise JournalInvalid(path, f"{where}{name} is {data[name]!r}")
    return {name: data[name] for name in types}


def _options(options: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    restored = dict(options)
    if "allow" in restored:
        restored["allow"] = frozenset(restored["allow"])
    if "argv" in restored:
        restored["argv"] = tuple(restored["argv"])
    return restored
