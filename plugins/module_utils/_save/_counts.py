# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What QEMU counted while it wrote, against what is in the image.

A backstop: the negotiation switches off what makes QEMU leave RAM out, but whoever else reaches a
monitor may switch it on again before the save begins.
"""

from __future__ import annotations

from .._qemu._migration import MigrationReport
from .._saveimage._verify import Structure

_LIKELY_CAUSE = (
    "RAM is missing from it; somebody may have changed QEMU's migration capabilities meanwhile"
)


def missing_pages(structure: Structure, report: MigrationReport) -> str | None:
    """The reason, with the figures, when they prove that RAM is missing; None when they do not.

    With x-ignore-shared the stream lists shared blocks, but ram.total and the stream's pages are
    those of the others. With background-snapshot QEMU counts pages and writes no bitmap. A QEMU
    that gives no figures proves nothing.

    Where all is well, a stopped guest has as many present pages as ram.normal. Neither figure
    proves a loss alone: ram.normal exceeds the present pages where a page was written twice, and
    the absent pages exceed ram.duplicate where QEMU may pass some over (the unplugged part of a
    virtio-mem device). Source: QEMU 10.0 migration/ram.c, multifd-nocomp.c, measured.
    """
    if 0 < report.total_bytes < structure.ram_bytes:
        return (
            f"the RAM blocks in the image are of {structure.ram_bytes} bytes, but QEMU wrote only "
            f"those of {report.total_bytes}: {_LIKELY_CAUSE}"
        )
    present, absent = structure.present_pages, structure.zero_pages
    if present is None or absent is None:
        return None
    if present < report.normal_pages and absent > report.zero_pages:
        return (
            f"QEMU counted {report.normal_pages} pages with content and {report.zero_pages} zero "
            f"pages, but the image has {present} present and {absent} absent pages: {_LIKELY_CAUSE}"
        )
    return None
