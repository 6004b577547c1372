# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux guest's disk on paper: the lines that its script writes, and who says them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.tests.support.linux_disk import (
    DISK_SCRIPT,
    DiskPass,
    Unmounted,
    Written,
    numbered_lines,
    parse_disk_line,
)
from ansible_collections.vmfleet.suspend.tests.support.linux_guest import parse_line

SUM = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (f"written 16 {SUM}\n", Written(16, SUM)),
        (f"disk 7 {SUM}\n", DiskPass(7, SUM)),
        ("unmounted 31\n", Unmounted(31)),
    ],
)
def test_a_line_of_the_disks_script_is_understood_and_is_nobody_elses(line, report):
    assert parse_disk_line(line) == report
    assert parse_line(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"disk 7 {SUM}",
        f"disk 7 {SUM[:-1]}\n",
        "disk 7\n",
        "written 16\n",
        "unmounted\n",
        f"unmounted 7 {SUM}\n",
        f"pass 7 {SUM}\n",
        "mount: mounting /dev/vda on /disk failed: Invalid argument\n",
        "[    9.1] EXT4-fs error (device vda): ext4_lookup:1855\n",
    ],
)
def test_any_other_line_is_none_of_its(line):
    assert parse_disk_line(line) is None


def test_every_line_that_the_script_can_write_is_understood():
    written = re.findall(r'echo "(.*)"', DISK_SCRIPT)
    assert len(written) == 3
    for words in written:
        verb = words.split()[0]
        last = "" if verb == "unmounted" else f" {SUM}"
        assert parse_disk_line(f"{verb} 3{last}\n") is not None


def test_the_script_has_no_mistakes_of_syntax():
    shell = shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-n"], input=DISK_SCRIPT, text=True, check=True)


def test_a_log_has_a_numbered_line_of_a_block_per_pass():
    log = numbered_lines(12)
    assert len(log) == 12 * 4096
    assert [int(line) for line in log.splitlines()] == list(range(1, 13))
