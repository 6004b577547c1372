# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux guest on paper: the lines of its first program, and who says them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.tests.support.linux_guest import (
    INIT,
    Begin,
    Filled,
    Pass,
    Tick,
    initramfs,
    parse_line,
)

SUM = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (f"filled 200 {SUM}\n", Filled(200, SUM)),
        ("begin 7\n", Begin(7)),
        (f"pass 7 {SUM}\n", Pass(7, SUM)),
        ("tick 31 12.40\n", Tick(31, 12.4)),
    ],
)
def test_a_line_of_the_first_program_is_understood(line, report):
    assert parse_line(line) == report


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"pass 7 {SUM}",
        f"pass 7 {SUM[:-1]}\n",
        "pass 7 12.40\n",
        "pass 7\n",
        f"begin 7 {SUM}\n",
        f"tick 3 {SUM}\n",
        "filled 200\n",
        f"[    6.2] pass 7 {SUM}\n",
        "Kernel panic - not syncing: Attempted to kill init!\n",
    ],
)
def test_any_other_line_is_none_of_its(line):
    assert parse_line(line) is None


def test_every_line_that_the_first_program_can_write_is_understood():
    written = re.findall(r'echo "(.*)"', INIT)
    assert len(written) == 4
    for words in written:
        verb = words.split()[0]
        last = {"begin": "", "tick": " 1.25"}.get(verb, f" {SUM}")
        assert parse_line(f"{verb} 3{last}\n") is not None


def test_the_first_program_is_a_shell_script_without_mistakes_of_syntax():
    shell = shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-n"], input=INIT, text=True, check=True)


def test_the_file_system_has_the_first_program_its_shell_and_the_devices_it_uses():
    content = initramfs(b"the busybox")
    assert b"the busybox" in content
    assert INIT.encode() in content
    for device in re.findall(r"/(dev/\w+)", INIT):
        assert device.encode() + b"\0" in content
