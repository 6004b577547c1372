# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of who reads whose images, as docs/docsite/rst/interoperability.rst shows it.

Its cells are what the tests saw. A test whose cell is not the page's fails; ``pytest --full
--write-docs`` writes the page anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_LABEL = ".. _ansible_collections.vmfleet.suspend.docsite.interoperability:"
_INTRODUCTION = """
Who reads whose images
======================

Three can save a guest of libvirt's and three can bring it back: ``virsh`` itself, the modules
through libvirt (``domain``), and the modules over QMP (``qmp_socket``). This page is written by the
tests, which try each pair with libvirt 11.3 and QEMU 10.0; *yes* means that the guest's own check
of its memory passed afterwards.

Over QMP means a QEMU that anybody runs with the command line that libvirt gave it. Its image
carries libvirt's definition of the domain, if that still describes the guest, or
``domain_xml_file``. An image of a guest that libvirt never knew has a description without devices.
``virsh restore`` says then that it cannot find the emulator ``/saved/over/QMP/...``, and
``qemu_restore`` with ``domain`` refuses it.

An image that the modules restored is spent: ``virsh`` refuses it too. ``virsh`` marks nothing. What
it restored still looks ready, and has to be removed by hand.

"""
Cell = tuple[str, str, str]


class InteropTable:
    """Checks cells against the page, or collects them for a new one."""

    def __init__(self, page: Path, kinds: Sequence[str], *, write: bool) -> None:
        self._page = page
        self._kinds = kinds
        self._write = write
        self._cells: dict[Cell, str] = {}

    def add(self, saver: str, restorer: str, kind: str, outcome: str) -> None:
        """One cell that a test saw."""
        self._cells[saver, restorer, kind] = outcome
        if not self._write:
            shown = self._shown().get((saver, restorer, kind))
            assert shown == outcome, (
                f"{self._page.name} says {shown} (pytest --full --write-docs writes it anew)"
            )

    def _shown(self) -> dict[Cell, str]:
        cells: dict[Cell, str] = {}
        row: list[str] = []
        for line in self._page.read_text("utf-8").splitlines():
            if line.startswith("   * - "):
                row = []
            if line.startswith(("   * - ", "     - ")):
                row.append(line[7:])
            if len(row) == len(self._kinds) + 2:
                cells |= {
                    (row[0], row[1], kind): cell
                    for kind, cell in zip(self._kinds, row[2:], strict=True)
                }
        return cells

    def finish(self) -> None:
        """Write the page, when that was asked for."""
        if not self._write or not self._cells:
            return
        lines = [_LABEL, _INTRODUCTION + ".. list-table::", "   :header-rows: 1", ""]
        lines += _row("Saved by", "restored by", *self._kinds)
        for saver, restorer in dict.fromkeys((saver, to) for saver, to, _kind in self._cells):
            outcomes = (self._cells[saver, restorer, kind] for kind in self._kinds)
            lines += _row(saver, restorer, *outcomes)
        self._page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(*cells: str) -> list[str]:
    first, *others = cells
    return [f"   * - {first}", *(f"     - {cell}" for cell in others)]
