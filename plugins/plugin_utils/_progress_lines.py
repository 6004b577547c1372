# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which lines a controller shows of a progress file: pure, from one look at it to the next."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

# One guest is heard of again after either of these, and whenever it begins another step.
_EVERY_SECONDS = 5.0
_EVERY_SHARE = 0.25
# Steps that are over faster than this are not worth a line.
_BRIEF_SECONDS = 1.0
_ENDS = {
    "save": "saved",
    "restore": "restored",
    "wait": "waited",
    "look after": "looked after",
}
# Of no interest where nothing of it took long.
_ASIDE = "look after"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

Entry = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class _Shown:
    """What was shown of a guest last. ``seen_step``, ``since_seconds``: the step it is in, and
    since when; ``step``: the one that was shown."""

    seen_step: str = ""
    since_seconds: float = 0.0
    step: str = ""
    at_seconds: float = 0.0
    share: float = 0.0
    ended: bool = False
    first_bytes: int = 0
    first_seconds: float = 0.0


class ProgressLines:
    """Lines of one task, one for each thing that happened; ``now`` in seconds of any clock."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], _Shown] = {}

    def lines(self, entries: t.Iterable[Entry], now: float) -> list[str]:
        """What is new in the file since the last look."""
        found = []
        for entry in entries:
            key = (entry["verb"], entry["guest"])
            shown, line = self._line(entry, self._shown.get(key, _Shown()), now)
            self._shown[key] = shown
            if line is not None:
                found.append(one_line(line))
        return found

    def _line(self, entry: Entry, shown: _Shown, now: float) -> tuple[_Shown, str | None]:
        if entry["ended"] is not None:
            untold = entry["verb"] == _ASIDE and not shown.step
            line = None if shown.ended or untold else end_line(entry)
            return replace(shown, ended=True), line
        step = entry["step"]
        if shown.ended or step != shown.seen_step:
            shown = _Shown(
                step,
                now,
                step="" if shown.ended else shown.step,
                at_seconds=shown.at_seconds,
                first_bytes=entry["done_bytes"] or 0,
                first_seconds=now,
            )
        share = share_of(entry)
        if step != shown.step:
            due = now - shown.since_seconds >= _BRIEF_SECONDS or entry["verb"] == "wait"
        else:
            waited = now - shown.at_seconds >= _EVERY_SECONDS
            due = entry["done_bytes"] is not None and (
                waited or (share is not None and share - shown.share >= _EVERY_SHARE)
            )
        if not due:
            return shown, None
        rate = None
        if entry["done_bytes"] is not None and now > shown.first_seconds:
            rate = max(0.0, entry["done_bytes"] - shown.first_bytes) / (now - shown.first_seconds)
        new = replace(shown, step=step, at_seconds=now, share=share or 0.0)
        return new, step_line(entry, rate)


def one_line(text: str) -> str:
    """Without ends of lines and what commands a terminal: an error may quote QEMU."""
    return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))


def share_of(entry: Entry) -> float | None:
    """How much of the step is done, 0 to 1; None where that is not known."""
    if entry["done_bytes"] is None or not entry["total_bytes"]:
        return None
    return min(1.0, float(entry["done_bytes"]) / float(entry["total_bytes"]))


def step_line(entry: Entry, rate: float | None) -> str:
    """``web01: writing the guest's state, 37 %, 4.1 GiB of 11.0 GiB, 2.3 GiB/s, 3 s left``."""
    parts = [entry["step"].rstrip(".")]
    share = share_of(entry)
    if share is not None:
        parts.append(f"{share:.0%}".replace("%", " %"))
        parts.append(f"{amount(entry['done_bytes'])} of {amount(entry['total_bytes'])}")
    elif entry["done_bytes"] is not None:
        parts.append(amount(entry["done_bytes"]))
    if rate:
        parts.append(f"{amount(rate)}/s")
        if share is not None:
            left = (entry["total_bytes"] - entry["done_bytes"]) / rate
            parts.append(f"{duration(left)} left")
    return f"{entry['guest']}: {', '.join(parts)}"


def end_line(entry: Entry) -> str:
    """``web01: saved in 4.2 s``; a failure's own words are in the result."""
    took = duration(entry["seconds"])
    if entry["ended"] == "done":
        return f"{entry['guest']}: {_ENDS.get(entry['verb'], entry['verb'])} in {took}"
    return f"{entry['guest']}: {entry['verb']} failed after {took}: {entry['error']}"


def amount(size_bytes: float) -> str:
    """Bytes for people: ``4.1 GiB``."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds for people: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
