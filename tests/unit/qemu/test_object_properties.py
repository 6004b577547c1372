# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a QEMU can map RAM from a file that it must not change: the program is asked."""

from __future__ import annotations

import asyncio
import os
import shlex
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _object_properties
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


def test_a_program_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(Refused, match=f"The program {tmp_path}/qemu does not exist"):
        asyncio.run(refuse_old_qemu(f"{tmp_path}/qemu"))


@pytest.fixture
def scripted(tmp_path):
    """A program in QEMU's place that runs the lines of a shell script."""

    def make(*lines):
        program = tmp_path / "qemu"
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]), "ascii")
        program.chmod(0o755)
        return str(program)

    return make


def test_the_program_is_asked_once_and_with_nothing_but_the_question(scripted, tmp_path):
    said = shlex.quote(help_text(*NEEDED_PROPERTIES))
    program = scripted(f'echo "$@" >> {tmp_path}/asked', f"printf %s {said}")
    asyncio.run(refuse_old_qemu(program))
    assert (tmp_path / "asked").read_text() == "-object memory-backend-file,help\n"


def test_a_qemu_without_rom_is_told_which_one_has_it(scripted):
    said = shlex.quote(help_text(*(name for name in NEEDED_PROPERTIES if name != "rom")))
    program = scripted(f"printf %s {said}")
    with pytest.raises(
        Refused, match=r"has no property rom of memory-backend-file .*8\.2 or newer"
    ):
        asyncio.run(refuse_old_qemu(program))


def test_what_a_program_says_about_errors_is_no_list_of_properties(scripted):
    said = shlex.quote(help_text(*NEEDED_PROPERTIES))
    with pytest.raises(Refused, match="has no property mem-path"):
        asyncio.run(refuse_old_qemu(scripted(f"printf %s {said} >&2")))


def test_a_program_that_never_answers_is_refused_and_ended(scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(_object_properties, "_SECONDS", 0.5)
    program = scripted(f"echo $$ > {tmp_path}/pid", "exec sleep 60")
    started = time.monotonic()
    with pytest.raises(Refused, match="has no property mem-path"):
        asyncio.run(refuse_old_qemu(program))
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("script", ["echo nothing", "exit 1", "echo memory-backend-file; exit 1"])
def test_a_program_that_does_not_answer_like_a_recent_qemu_is_refused_by_name(scripted, script):
    program = scripted(script)
    with pytest.raises(Refused, match=rf"{program} has no property mem-path, .*Set load to eager"):
        asyncio.run(refuse_old_qemu(program))
