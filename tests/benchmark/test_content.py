# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast an image is compared with the guest's RAM, against copying as much memory."""

from __future__ import annotations

import os
import time

from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _steps
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._content import first_difference
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save
from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest

MIB = 1 << 20
PATTERN_MIB = 512


def copy_bytes_per_second():
    source, target = bytearray(os.urandom(MIB) * 256), bytearray(256 * MIB)
    target[:] = source  # its pages are there from now on
    began = time.perf_counter()
    target[:] = source
    return len(source) / (time.perf_counter() - began)


def test_the_comparison_of_an_image_with_the_guest(tmp_path, capsys, monkeypatch):
    taken = []

    def timed(*arguments):
        began = time.perf_counter()
        difference = first_difference(*arguments)
        taken.append(time.perf_counter() - began)
        return difference

    monkeypatch.setattr(_steps, "first_difference", timed)
    guest = TinyGuest(tmp_path, memory_mib=1024, pattern_mib=PATTERN_MIB, zero_mib=256)
    try:
        guest.start()
        guest.wait_ready()
        result = do_save(guest.qmp_socket, tmp_path / "image", verify="content")
    finally:
        guest.close()
    assert result["image"]["verified"] == "content"
    copied = copy_bytes_per_second()
    speed = result["image"]["ram_bytes"] / taken[0]
    with capsys.disabled():
        print(
            f"\ncontent verification of 1 GiB, {PATTERN_MIB} MiB of it data: {taken[0]:.2f} s, "
            f"{speed / 1e9:.1f} GB/s, {speed / copied:.2f} of one thread's memory copy"
        )
