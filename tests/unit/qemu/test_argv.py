# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command line becomes a destination that waits."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._argv import incoming_argv
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._command_line import FLAGS

SOCKET = "/run/vm/qmp"
QEMU = "qemu-system-x86_64"
QMP = ["-qmp", f"unix:{SOCKET},server=on,wait=off"]
WAIT = ["-incoming", "defer", "-S"]


def rewritten(*words: str) -> list[str]:
    return incoming_argv([QEMU, *QMP, *words], SOCKET)[0]


def test_a_plain_guest_gets_incoming_defer_and_held_vcpus_at_the_end() -> None:
    assert rewritten("-m", "64") == [QEMU, *QMP, "-m", "64", *WAIT]


@pytest.mark.parametrize("dash", ["-", "--"])
@pytest.mark.parametrize(
    "dropped",
    [["daemonize"], ["S"], ["incoming", "tcp:0:4444"], ["incoming", "defer"], ["loadvm", "tag"]],
    ids=" ".join,
)
def test_what_contradicts_waiting_is_dropped_and_told(dash: str, dropped: list[str]) -> None:
    words = [dash + dropped[0], *dropped[1:]]
    argv, changes = incoming_argv([QEMU, *QMP, "-m", "64", *words, "-nodefaults"], SOCKET)
    assert argv == [QEMU, *QMP, "-m", "64", "-nodefaults", *WAIT]
    assert changes[0].startswith(f"Dropped {words[0]}: ")


def test_what_is_dropped_is_told_without_its_value() -> None:
    argv = [QEMU, *QMP, "-incoming", "exec:curl -u me:hunter2 https://store/image"]
    assert not any("hunter2" in change for change in incoming_argv(argv, SOCKET)[1])


def test_everything_that_must_go_goes_wherever_it_stands() -> None:
    argv = rewritten("-S", "-daemonize", "-incoming", "tcp::1", "-incoming", "x", "--S", "-m", "1")
    assert argv == [QEMU, *QMP, "-m", "1", *WAIT]


@pytest.mark.parametrize(
    "kept",
    [
        ["-append", "-S"],
        ["-name", "-daemonize"],
        ["-kernel", "-incoming", "-append", "-loadvm"],
        ["--name", "-preconfig"],
        ["-runas", "nobody", "-chroot", "/srv"],
        ["disk.img"],
        ["-drive", "file=-S,if=virtio"],
    ],
    ids=" ".join,
)
def test_values_that_look_like_options_stay(kept: list[str]) -> None:
    assert rewritten(*kept) == [QEMU, *QMP, *kept, *WAIT]


@pytest.mark.parametrize("flag", sorted(FLAGS - {"S", "daemonize", "preconfig"}))
def test_a_flag_takes_no_value(flag: str) -> None:
    assert rewritten("-" + flag, "-S") == [QEMU, *QMP, "-" + flag, *WAIT]


def test_a_program_without_a_slash_is_left_to_the_path() -> None:
    assert incoming_argv([QEMU, *QMP], SOCKET)[0][0] == QEMU


# The monitor.


@pytest.mark.parametrize(
    "monitor",
    [
        ["-qmp", f"unix:{SOCKET},server=on,wait=off"],
        ["--qmp", f"unix:{SOCKET},server,nowait"],
        ["-qmp-pretty", f"unix:{SOCKET},server=yes"],
        [
            *("-chardev", f"socket,id=m,path={SOCKET},server=on,wait=off"),
            *("-mon", "chardev=m,mode=control"),
        ],
        [
            *("-mon", "m,mode=control,pretty=on"),
            *("-chardev", f"socket,path={SOCKET},server=on,wait=off,id=m"),
        ],
    ],
    ids=" ".join,
)
def test_a_monitor_that_is_there_already_is_used(monitor: list[str]) -> None:
    argv, changes = incoming_argv([QEMU, *monitor], SOCKET)
    assert argv == [QEMU, *monitor, *WAIT]
    assert not any("monitor" in change for change in changes)


@pytest.mark.parametrize(
    "other",
    [
        [],
        ["-qmp", "unix:/run/vm/other,server=on,wait=off"],
        ["-qmp", "tcp:localhost:4444,server=on,wait=off"],
        ["-monitor", "stdio"],
        ["-chardev", "pty,id=m", "-mon", "chardev=m,mode=control"],
    ],
    ids=" ".join,
)
def test_a_monitor_on_the_wanted_socket_is_added(other: list[str]) -> None:
    argv, changes = incoming_argv([QEMU, *other], SOCKET)
    assert argv == [QEMU, *other, *QMP, *WAIT]
    assert f"Added a monitor on {SOCKET}." in changes


def test_commas_in_the_socket_path_are_doubled_and_recognised() -> None:
    argv, _changes = incoming_argv([QEMU], "/run/a,b/qmp")
    assert argv == [QEMU, "-qmp", "unix:/run/a,,b/qmp,server=on,wait=off", *WAIT]
    assert incoming_argv(argv, "/run/a,b/qmp")[0] == argv


def test_rewriting_twice_changes_nothing_more() -> None:
    once, _changes = incoming_argv([QEMU, "-m", "64", "-S", "-daemonize"], SOCKET)
    assert incoming_argv(once, SOCKET)[0] == once


# Refusals.


@pytest.mark.parametrize("argv", [[], [""]])
def test_an_empty_argv_is_refused(argv: list[str]) -> None:
    with pytest.raises(Refused, match="empty"):
        incoming_argv(argv, SOCKET)


@pytest.mark.parametrize("word", ["-preconfig", "--preconfig"])
def test_preconfig_is_refused(word: str) -> None:
    with pytest.raises(Refused, match="preconfig"):
        incoming_argv([QEMU, word], SOCKET)


@pytest.mark.parametrize(
    "words",
    [
        ["-monitor", f"unix:{SOCKET},server=on,wait=off"],
        ["-serial", f"unix:{SOCKET},server=on"],
        ["-qmp", f"unix:{SOCKET}"],
        ["-qmp", f"unix:{SOCKET},server=off"],
        ["-qmp", f"unix:{SOCKET},noserver"],
        ["-chardev", f"socket,id=m,path={SOCKET},server=on"],
        ["-chardev", f"socket,id=m,path={SOCKET},server=on", "-mon", "chardev=m"],
    ],
    ids=" ".join,
)
def test_a_socket_that_is_used_for_something_else_is_refused(words: list[str]) -> None:
    with pytest.raises(Refused, match="something other than a QMP monitor"):
        incoming_argv([QEMU, *words], SOCKET)


# The table against a real QEMU.


def options_of_installed_qemu() -> dict[str, bool]:
    """Option -> whether -help shows a value behind it."""
    help_text = subprocess.run([QEMU, "-help"], capture_output=True, text=True, check=True).stdout
    options: dict[str, bool] = {}
    for line in help_text.splitlines():
        # One blank before a value, two or a tab before the description.
        found = re.match(r"--?([a-zA-Z][\w-]*)(?:\s\s|\t|$)", line)
        if found is not None:
            options[found[1]] = False
        elif (valued := re.match(r"--?([a-zA-Z][\w-]*) \S", line)) is not None:
            options[valued[1]] = True
    return options


@pytest.mark.skipif(shutil.which(QEMU) is None, reason="compares with an installed QEMU")
def test_the_flags_are_those_of_the_installed_qemu() -> None:
    options = options_of_installed_qemu()
    assert len(options) > 80
    without_value = {name for name, takes_value in options.items() if not takes_value}
    # "-h or -help" is one line, and -dtb has its value aligned like a description.
    assert without_value - FLAGS <= {"dtb"}
    assert {name for name in FLAGS if options.get(name)} <= {"h"}
