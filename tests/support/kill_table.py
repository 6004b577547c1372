# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what dies when, as docs/docsite/rst/killed.rst shows it.

Its rows are what the tests saw. A test whose row is not in the file fails; ``pytest --write-docs``
writes the file anew from the tests that ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LABEL = ".. _ansible_collections.vmfleet.suspend.docsite.killed:"
_INTRODUCTION = """
When something dies on the way
==============================

Whatever ends a save or a restore, the guest runs as before or its image is ready: never both, and
neither only when its own QEMU died, and its RAM with it. The next run of the same task finds what
is left and finishes or undoes it; the plan in its result says so under ``recovers``, and
``actions`` lists every step.

This page is written by the tests, which let each thing die at each step and look: *then* is what
they found, *afterwards* what the next run made of it. ``unfinished`` is a file called
``.NAME.partial``, which nothing restores; ``spent`` an image that is not restored any more, because
its guest has run since.

What the next run does first:

remove
   A file that no QEMU needs is removed; then the guest is saved.
undo
   Guest, QEMU's settings and store are put back as they were; then the guest is saved.
finish
   What QEMU wrote is compared with the guest's RAM, verified and published.
leave
   The image is ready: its guest is ended or continued, as asked.
publish
   A whole image, whose QEMU has ended, gets its name.
continue
   The guest of a copy for inspection goes on; then a new copy is made.
tidy
   QEMU's migration settings are put back.
end
   A QEMU that an earlier run started, and whose load failed, is ended; another is started.
"""
_SECTIONS = (
    "The run that saves is killed",
    "The run that saves through a pipe is killed",
    "The run that saves is killed, and QEMU after it",
    "QEMU is killed",
    "A compressor, the store or the monitor fails",
    "The run that restores is killed",
)
_HEADINGS = ("What dies", "Guest then", "Image then", "Next run", "Guest afterwards", "Image")


@dataclass(frozen=True)
class Row:
    """``section``: a heading of the page; the rest are the columns. ``next_run``: its remedy, or
    what it says."""

    section: str
    what: str
    guest_then: str
    image_then: str
    next_run: str
    guest_afterwards: str
    image_afterwards: str

    def lines(self) -> list[str]:
        """The row of a list-table."""
        cells = (
            self.what,
            self.guest_then,
            self.image_then,
            self.next_run,
            self.guest_afterwards,
            self.image_afterwards,
        )
        first, *others = cells
        return [f"   * - {first}", *(f"     - {cell}" for cell in others)]


class KillTable:
    """Checks rows against the page, or collects them for a new one."""

    def __init__(self, page: Path, *, write: bool) -> None:
        self._page = page
        self._write = write
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """One row that a test saw."""
        self._rows.append(row)
        if not self._write:
            known = self._page.read_text(encoding="utf-8")
            text = "\n".join(row.lines())
            assert text in known, (
                f"{self._page.name} does not show this row (pytest --write-docs):\n{text}"
            )

    def finish(self) -> None:
        """Write the page, when that was asked for."""
        if not self._write or not self._rows:
            return
        parts = [_LABEL, _INTRODUCTION]
        for section in sorted({row.section for row in self._rows}, key=_SECTIONS.index):
            parts += [section, "-" * len(section), "", ".. list-table::", "   :header-rows: 1", ""]
            parts += Row("", *_HEADINGS).lines()
            for row in self._rows:
                if row.section == section:
                    parts += row.lines()
            parts.append("")
        self._page.write_text("\n".join(parts), encoding="utf-8")
