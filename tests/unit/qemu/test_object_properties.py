# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a QEMU can map RAM from a file that it must not change: the program is asked."""

from __future__ import annotations

import asyncio

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._mapped_argv import (
    NEEDED_PROPERTIES,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._object_properties import (
    missing_properties,
    refuse_old_qemu,
)
from ansible_collections.vmfleet.suspend.tests.support.guest import QEMU


def help_text(*names):
    return "memory-backend-file options:\n" + "".join(f"  {name}=<bool>  - x\n" for name in names)


def test_a_program_that_lists_all_that_is_needed_misses_nothing():
    assert missing_properties(help_text("align", *NEEDED_PROPERTIES)) == ()


@pytest.mark.parametrize("name", NEEDED_PROPERTIES)
def test_each_property_is_needed(name):
    others = [one for one in NEEDED_PROPERTIES if one != name]
    assert missing_properties(help_text(*others)) == (name,)


def test_a_word_in_an_explanation_is_no_property():
    text = help_text(*(one for one in NEEDED_PROPERTIES if one != "rom"))
    assert missing_properties(text + "  dump=<bool> - rom=off is meant\n") == ("rom",)


def test_this_machines_qemu_can():
    asyncio.run(refuse_old_qemu(QEMU))


@pytest.mark.parametrize("script", ["echo nothing", "exit 1", "echo memory-backend-file; exit 1"])
def test_a_program_that_does_not_answer_like_a_recent_qemu_is_refused_by_name(tmp_path, script):
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n", "ascii")
    program.chmod(0o755)
    with pytest.raises(Refused, match=rf"{program} has no property mem-path, .*Set load to eager"):
        asyncio.run(refuse_old_qemu(str(program)))
