# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a new image from being begun: refused by name, and left as it was."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import (
    ImageLocked,
    Refused,
    StoreError,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _lock
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._lock import store_lock
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    PartialImage,
    check_target,
    partial_path,
)
from ansible_collections.vmfleet.suspend.tests.support.images import libvirt_prefix

DRAFT = libvirt_prefix("<domain>draft</domain>", complete=False, padding_bytes=600)
OLD = b"the image that was here before"


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "web01.save")


@pytest.fixture
def image(target):
    created = PartialImage.create(target)
    yield created
    created.close()


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("existing", [False, True])
def test_a_target_that_is_free_or_a_file_can_be_begun_and_checking_writes_nothing(
    target, tmp_path, existing
):
    if existing:
        (tmp_path / "web01.save").write_bytes(OLD)
    before = os.listdir(tmp_path)
    check_target(target)
    assert os.listdir(tmp_path) == before


def test_a_name_may_be_as_long_as_its_hidden_name_allows(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len("..partial")
    check_target(str(tmp_path / ("n" * longest)))
    with pytest.raises(Refused, match="too long"):
        check_target(str(tmp_path / ("n" * (longest + 1))))


def test_a_second_writer_of_the_same_image_is_told_who_holds_it(image, target):
    with pytest.raises(ImageLocked) as refused:
        PartialImage.create(target)
    assert refused.value.facts["holder_pid"] == os.getpid()
    assert str(os.getpid()) in refused.value.message


def test_what_a_dead_run_left_is_never_written_over(target):
    image = PartialImage.create(target)
    image.write_prefix(DRAFT)
    image.close()
    with pytest.raises(Refused, match="appeared") as refused:
        PartialImage.create(target)
    assert not isinstance(refused.value, ImageLocked)
    assert image.path in refused.value.message
    assert content(image.path) == DRAFT


def test_what_a_dead_run_left_is_taken_over_and_locked(target):
    image = PartialImage.create(target)
    image.write_prefix(DRAFT)
    image.close()
    adopted = PartialImage.adopt(target, image.path)
    assert adopted is not None
    with pytest.raises(ImageLocked) as refused:
        PartialImage.adopt(target, image.path)
    assert refused.value.facts["holder_pid"] == os.getpid()
    adopted.close()
    assert content(image.path) == DRAFT


def test_what_a_living_run_writes_is_not_taken_over(image, target):
    with pytest.raises(ImageLocked):
        PartialImage.adopt(target, image.path)


def test_where_nothing_was_left_nothing_is_taken_over(target):
    assert PartialImage.adopt(target, partial_path(target)) is None
    assert PartialImage.adopt(target, target) is None


def test_a_second_run_waits_until_the_store_is_free_and_then_names_its_holder(
    target, tmp_path, monkeypatch
):
    monkeypatch.setattr(_lock, "_STORE_SECONDS", 0.05)
    with store_lock(str(tmp_path)), pytest.raises(ImageLocked, match="store") as refused:
        PartialImage.create(target)
    assert refused.value.facts["holder_pid"] == os.getpid()
    assert os.listdir(tmp_path) == []
    PartialImage.create(target).close()


def test_a_store_whose_filesystem_locks_no_directories_is_used_without(
    target, tmp_path, monkeypatch
):
    """NFS: its images can still be locked, being open for writing."""
    really = fcntl.flock

    def flock(fd, operation):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        really(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    PartialImage.create(target).close()
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "directory", "fifo"])
def test_a_target_that_is_no_regular_file_is_refused_and_left_alone(target, tmp_path, kind):
    other = tmp_path / "other"
    if "symlink" in kind:
        os.symlink(other, target)
    if kind == "symlink":
        other.write_bytes(OLD)
    elif kind == "directory":
        os.mkdir(target)
    elif kind == "fifo":
        os.mkfifo(target)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Refused, match="not a regular file"):
        PartialImage.create(target)
    assert sorted(os.listdir(tmp_path)) == before
    assert kind != "symlink" or other.read_bytes() == OLD


def test_a_symlink_under_the_partial_name_is_never_followed(target, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(OLD)
    os.symlink(other, partial_path(target))
    with pytest.raises(Refused):
        PartialImage.create(target)
    assert other.read_bytes() == OLD


@pytest.mark.parametrize("directory", ["missing", "a-file"])
def test_a_directory_that_is_none_is_refused_by_name(tmp_path, directory):
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises((Refused, StoreError), match=directory):
        PartialImage.create(str(tmp_path / directory / "web01.save"))
