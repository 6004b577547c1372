# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may have an image open: one run at a time, the file that the path names, nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageLocked,
    Refused,
    StoreError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._lock import (
    lock_holder,
    lock_image,
)

HOLD = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()"


@pytest.fixture
def path(tmp_path):
    image = tmp_path / "web01.save"
    image.write_bytes(b"LibvirtQemudSave")
    return str(image)


@pytest.mark.parametrize("write", [False, True])
def test_a_free_image_is_opened_as_asked_and_not_for_children(path, write):
    fd = lock_image(path, write=write)
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    assert mode == (os.O_RDWR if write else os.O_RDONLY)
    assert os.get_inheritable(fd) is False
    assert lock_holder(fd) == os.getpid()
    os.close(fd)


def test_a_free_image_has_no_holder(path):
    with open(path, "rb") as image:
        assert lock_holder(image.fileno()) is None


@pytest.mark.parametrize("write", [False, True])
def test_an_image_in_use_names_the_process_that_holds_it(path, write):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ImageLocked, match=f"pid {holder.pid}") as refused:
            lock_image(path, write=write)
        assert refused.value.facts["holder_pid"] == holder.pid
    finally:
        holder.communicate(b"\n", timeout=10)
    os.close(lock_image(path, write=write))


def test_a_lock_without_a_known_holder_is_still_a_lock(path, monkeypatch):
    def in_use(_fd, _operation):
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", in_use)
    with pytest.raises(ImageLocked) as refused:
        lock_image(path, write=True)
    assert refused.value.facts["holder_pid"] is None
    assert "pid" not in refused.value.message


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_a_store_error(path, monkeypatch, error):
    def refuse(_fd, _operation):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=os.strerror(error)):
        lock_image(path, write=True)


@pytest.mark.parametrize("kind", ["missing", "symlink", "directory", "fifo", "device"])
def test_only_a_regular_file_under_its_own_name_is_opened(path, tmp_path, kind):
    other = str(tmp_path / "other")
    if kind == "symlink":
        os.symlink(path, other)
    elif kind == "directory":
        os.mkdir(other)
    elif kind == "fifo":
        os.mkfifo(other)
    elif kind == "device":
        other = os.devnull
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused, match=other):
        lock_image(other, write=kind == "device")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("replaced", [True, False])
def test_an_image_that_changed_its_name_before_the_lock_was_had_is_not_that_image(
    path, tmp_path, monkeypatch, replaced
):
    real = fcntl.flock

    def too_late(fd, operation):
        os.rename(path, tmp_path / "elsewhere")
        if replaced:
            (tmp_path / "web01.save").write_bytes(b"another image")
        return real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(ImageLocked, match="replaced"):
        lock_image(path, write=True)
