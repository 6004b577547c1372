# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU counted against what is in the image: when the figures prove that RAM is missing."""

from __future__ import annotations

import os
import re

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._migration import report_of
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._counts import missing_pages
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.images import (
    PAGE,
    Block,
    libvirt_prefix,
    sequential_stream,
    write_mapped,
)

RAM_PAGES = 64


@pytest.fixture
def structure(tmp_path):
    """Makes images of two RAM blocks, `RAM_PAGES` together; None: a sequential one."""

    def make(present_pages):
        path = tmp_path / "image"
        blocks = [Block("pc.ram", RAM_PAGES - 8), Block("vga.vram", 8)]
        if present_pages is None:
            path.write_bytes(libvirt_prefix() + sequential_stream(blocks))
        else:
            blocks[0].pages = {page: b"\x11" * PAGE for page in range(present_pages)}
            write_mapped(path, blocks)
        fd = os.open(path, os.O_RDONLY)
        try:
            return verify_structure(fd, str(path))
        finally:
            os.close(fd)

    return make


def counted(normal_pages, zero_pages, total_pages=RAM_PAGES):
    ram = {"normal": normal_pages, "duplicate": zero_pages, "total": total_pages * PAGE}
    return report_of({"ram": ram}, 1.0)


@pytest.mark.parametrize(
    ("present_pages", "report"),
    [
        pytest.param(10, counted(10, 54), id="a stopped guest: equal"),
        pytest.param(0, counted(0, 64), id="all pages are zero"),
        pytest.param(10, counted(12, 54), id="two pages were written twice"),
        pytest.param(10, counted(12, 56), id="two pages became zero after they were written"),
        pytest.param(10, counted(10, 20), id="34 pages that a virtio-mem device has not plugged"),
        pytest.param(10, counted(0, 0, 0), id="QEMU gives no figures"),
        pytest.param(None, counted(10, 54), id="sequential: no page is counted in the image"),
        pytest.param(None, counted(0, 0, 0), id="sequential, and QEMU gives no figures"),
    ],
)
def test_figures_that_fit_prove_nothing(structure, present_pages, report):
    assert missing_pages(structure(present_pages), report) is None


@pytest.mark.parametrize(
    ("present_pages", "report", "figures"),
    [
        pytest.param(
            0,
            counted(10, 54),
            "10 pages with content and 54 zero pages, but the image has 0 present and 64 absent",
            id="background-snapshot: no bitmap was written",
        ),
        pytest.param(9, counted(10, 54), "10 pages .* has 9 present", id="one page"),
        pytest.param(
            0, counted(10, 20), "10 pages .* has 0 present", id="a bitmap, beside virtio-mem"
        ),
        pytest.param(
            2, counted(2, 6, 8), "262144 bytes, .* 32768", id="x-ignore-shared: a whole RAM block"
        ),
        pytest.param(
            None, counted(2, 6, 8), "262144 bytes, .* 32768", id="x-ignore-shared, sequential"
        ),
    ],
)
def test_figures_that_prove_a_loss_are_named(structure, present_pages, report, figures):
    reason = missing_pages(structure(present_pages), report)
    assert reason is not None
    assert re.search(figures, reason)
