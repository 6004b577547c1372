# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that reads an image ahead of its guest, run on real files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import time

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import (
    _launch,
    _prefetcher,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._deadline import Deadline
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._launch import (
    login_prefix,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._prefetcher import prefetch
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import (
    ProcessIdentity,
    identify,
)

MIB = 1 << 20


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(5 * MIB))
    return path


@pytest.fixture
def guest():
    """A process that lives as long as the test, in the guest's place."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield identify(process.pid)
        process.kill()


def read(image, ranges, guest, seconds=0, *, waited_for=True):
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return asyncio.run(
            prefetch(file.fileno(), ranges, guest, Deadline(seconds), waited_for=waited_for)
        )


def test_what_was_asked_for_is_read_to_its_end(image, guest):
    found = read(image, [(4096, 8192), (2 * MIB, 3 * MIB)], guest)
    assert (found.waited_for, found.ended) == (True, "complete")
    assert found.read_bytes == found.total_bytes == 8192 + 3 * MIB
    assert found.seconds is not None


def test_a_file_that_became_shorter_is_told(image, guest):
    found = read(image, [(4 * MIB, 4 * MIB)], guest)
    assert (found.read_bytes, found.ended) == (MIB, "the image is shorter than it was")


def test_nothing_to_read_is_complete_at_once(image, guest):
    found = read(image, [], guest)
    assert (found.read_bytes, found.ended) == (0, "complete")


def test_it_ends_when_the_guest_is_gone(image):
    with subprocess.Popen(["sleep", "600"]) as process:
        gone = identify(process.pid)
        process.kill()
    assert gone is not None
    found = read(image, [(0, 5 * MIB)], gone)
    assert (found.read_bytes, found.ended) == (0, "the guest is gone")


def test_a_guest_that_nobody_has_reaped_yet_is_gone(image, guest):
    os.kill(guest.pid, 9)
    os.waitid(os.P_PID, guest.pid, os.WEXITED | os.WNOWAIT)
    assert read(image, [(0, 5 * MIB)], guest).ended == "the guest is gone"


def test_a_process_that_got_the_guests_number_is_not_the_guest(image, guest):
    earlier = ProcessIdentity(guest.boot_id, guest.pid, guest.start_ticks - 1)
    assert read(image, [(0, 5 * MIB)], earlier).ended == "the guest is gone"


def test_an_image_without_a_name_is_read(image, guest):
    with image.open("rb") as file:
        image.unlink()
        found = asyncio.run(
            prefetch(file.fileno(), [(0, 5 * MIB)], guest, Deadline(0), waited_for=True)
        )
    assert (found.read_bytes, found.ended) == (5 * MIB, "complete")


def test_more_ranges_than_a_pipe_holds_are_read(image, guest):
    many = [(offset * 4096 % (5 * MIB), 16) for offset in range(20000)]
    found = read(image, many, guest)
    assert (found.read_bytes, found.ended) == (20000 * 16, "complete")


def test_the_result_of_reading_in_the_background_says_only_how_much_there_is(image, guest):
    assert read(image, [(0, MIB), (MIB, 7)], guest, waited_for=False).as_dict() == {
        "waited_for": False,
        "total_bytes": MIB + 7,
        "read_bytes": None,
        "seconds": None,
        "ended": None,
    }


def test_in_the_background_it_ends_by_itself_when_all_is_read(image, guest):
    read(image, [(0, 5 * MIB)], guest, waited_for=False)
    wait_for_no_readers(image)
    assert identify(guest.pid) == guest


def test_it_ends_when_the_host_runs_short_of_memory(image, guest, monkeypatch):
    monkeypatch.setattr(_prefetcher, "_SPARED_SHARE", 1.0)
    assert read(image, [(0, 5 * MIB)], guest).ended == "memory is short"


def test_in_the_background_it_ends_after_its_time(image, guest, monkeypatch):
    monkeypatch.setattr(_prefetcher, "_MOST_SECONDS", 0)
    read(image, [(0, 5 * MIB)] * 40000, guest, waited_for=False)
    wait_for_no_readers(image)


def test_it_ends_with_the_runs_own_timeout(image, guest, monkeypatch):
    slow = "import time\ntime.sleep(60)\n"
    monkeypatch.setattr(_prefetcher, "PREFETCHER", slow)
    assert read(image, [(0, MIB)], guest, seconds=0.3).ended == "the timeout was reached"


def test_a_reader_that_dies_is_told(image, guest, monkeypatch):
    monkeypatch.setattr(_prefetcher, "PREFETCHER", "raise SystemExit(1)\n")
    assert read(image, [(0, MIB)], guest).ended == "the reader was killed"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("raise SystemExit(3)\n", "its reader ended with status 3"),
        ("import time\ntime.sleep(60)\n", "its reader did not start"),
    ],
)
def test_a_reader_that_cannot_be_left_behind_is_an_error(image, guest, monkeypatch, program, words):
    monkeypatch.setattr(_prefetcher, "PREFETCHER", program)
    monkeypatch.setattr(_prefetcher, "_START_SECONDS", 0.5)
    with pytest.raises(OSError, match=words):
        read(image, [(0, MIB)], guest, waited_for=False)


def test_an_error_of_the_store_is_told(tmp_path, guest):
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        found = asyncio.run(prefetch(directory, [(0, MIB)], guest, Deadline(0), waited_for=True))
    finally:
        os.close(directory)
    assert found.ended == "reading failed: Is a directory"


def readers(path):
    status, found = path.stat(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(os.path.samestat(one, status) for one in files):
            found.append(int(pid))
    return found


def wait_for_no_readers(path):
    end = time.monotonic() + 10
    while readers(path):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_in_the_background_it_goes_on_alone_without_a_lock_on_the_image(image, guest):
    many = [(0, 5 * MIB)] * 40000  # 200 GB, read at half speed
    found = read(image, many, guest, waited_for=False)
    assert (found.waited_for, found.read_bytes, found.ended) == (False, None, None)
    (reader,) = readers(image)
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert os.getsid(reader) != os.getsid(0)  # so that a hangup does not reach it
    os.kill(guest.pid, 9)
    os.waitpid(guest.pid, 0)
    wait_for_no_readers(image)


def test_in_the_background_the_words_that_leave_the_login_come_first(image, guest, monkeypatch):
    monkeypatch.setattr(_prefetcher, "login_prefix", lambda: ("env", "LEFT=the-login"))
    read(image, [(0, 5 * MIB)] * 40000, guest, waited_for=False)
    (reader,) = readers(image)
    with open(f"/proc/{reader}/environ", "rb") as environment:
        assert b"LEFT=the-login" in environment.read().split(b"\0")
    os.kill(guest.pid, 9)
    os.waitpid(guest.pid, 0)
    wait_for_no_readers(image)


def test_a_reader_that_is_waited_for_needs_not_outlive_the_login(image, guest, monkeypatch):
    monkeypatch.setattr(_prefetcher, "login_prefix", lambda: ("false",))
    assert read(image, [(0, MIB)], guest).ended == "complete"


@pytest.mark.parametrize(
    ("user_id", "managers", "words"),
    [
        (0, ["system"], ("systemd-run", "--scope")),
        (0, ["user-0", "user-1000"], ()),
        (1000, ["user-1000"], ("systemd-run", "--user")),
        (1000, ["system", "user-0"], ()),
    ],
)
def test_the_login_is_left_through_the_manager_of_this_user(
    tmp_path, monkeypatch, user_id, managers, words
):
    for name in managers:
        (tmp_path / name).touch()
    monkeypatch.setattr(_launch, "_SYSTEM_MANAGER", str(tmp_path / "system"))
    monkeypatch.setattr(_launch, "_USER_MANAGER", str(tmp_path / "user-{}"))
    monkeypatch.setattr(os, "geteuid", lambda: user_id)
    assert login_prefix()[:2] == words
