# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that a guest runs from is kept from changing, and let go again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import (
    IMMUTABLE,
    MODE,
    lift,
    protect,
    protection,
    replaceable,
)

# linux/fs.h: FS_IOC_GETFLAGS is _IOR('f', 1, long), FS_IOC_SETFLAGS is _IOW('f', 2, long); what
# the kernel reads and writes is an int.
GET_ATTRIBUTES = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
SET_ATTRIBUTES = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
IMMUTABLE_ATTRIBUTE, NO_DUMP_ATTRIBUTE = 0x10, 0x40
ioctl = fcntl.ioctl  # the tests replace it for the code under test


def attributes(fd):
    data = bytearray(8)
    ioctl(fd, GET_ATTRIBUTES, data)
    return int.from_bytes(data[:4], sys.byteorder)


def set_attributes(fd, value):
    ioctl(fd, SET_ATTRIBUTES, value.to_bytes(4, sys.byteorder) + bytes(4))


def is_immutable(fd):
    return bool(attributes(fd) & IMMUTABLE_ATTRIBUTE)


@contextlib.contextmanager
def image_in(directory):
    """An image; nothing in its directory is immutable afterwards."""
    path = directory / "image.save"
    path.write_bytes(b"pages")
    path.chmod(0o600)
    try:
        yield path
    finally:
        for left in directory.iterdir():
            with contextlib.suppress(OSError), left.open("rb") as file:
                set_attributes(file.fileno(), attributes(file.fileno()) & ~IMMUTABLE_ATTRIBUTE)


@pytest.fixture
def path(tmp_path):
    with image_in(tmp_path) as path:
        yield path


@pytest.fixture
def fd(path):
    with path.open("rb") as file:
        yield file.fileno()


def need_attribute(fd):
    """Skip where no file can be made immutable, as the kernel says, not the code under test."""
    try:
        before = attributes(fd)
        set_attributes(fd, before | IMMUTABLE_ATTRIBUTE)
        set_attributes(fd, before)
    except OSError as exc:
        pytest.skip(f"files cannot be made immutable here (needs root): {exc.strerror}")


@pytest.fixture
def immutable(path, fd):
    need_attribute(fd)
    assert protect(fd, str(path)) == IMMUTABLE


def refuse_attributes(monkeypatch, *requests):
    def only_others(fd, request, *arguments):
        if request in requests:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return ioctl(fd, request, *arguments)

    monkeypatch.setattr(fcntl, "ioctl", only_others)


@pytest.fixture(
    params=[(GET_ATTRIBUTES, SET_ATTRIBUTES), (SET_ATTRIBUTES,)],
    ids=["filesystem without attributes", "not root"],
)
def only_modes(monkeypatch, request):
    refuse_attributes(monkeypatch, *request.param)


def test_an_ordinary_file_is_not_protected(fd):
    assert protection(fd) is None


ATTACKS = {
    "write": lambda path, _new: path.open("r+b"),
    "append": lambda path, _new: path.open("ab"),
    "overwrite": lambda path, _new: path.open("wb"),
    "truncate": lambda path, _new: os.truncate(path, 0),
    "remove": lambda path, _new: path.unlink(),
    "rename": lambda path, new: path.rename(new),
    "replace": lambda path, new: new.replace(path),
    "link": lambda path, _new: path.with_name("link").hardlink_to(path),
    "chmod": lambda path, _new: path.chmod(0o644),
}


@pytest.mark.usefixtures("immutable")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_immutable_file_stays_as_it_is_and_where_it_is(path, attack):
    new = path.with_name("new")
    new.write_bytes(b"new")
    with pytest.raises(PermissionError):
        attack(path, new)
    assert path.read_bytes() == b"pages"


def test_a_file_in_memory_is_protected_as_one_on_disk_is():
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no tmpfs where one is looked for")
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        image_in(Path(directory)) as path,
        path.open("rb") as file,
    ):
        need_attribute(file.fileno())
        assert protect(file.fileno(), str(path)) == IMMUTABLE
        assert is_immutable(file.fileno())
        with pytest.raises(PermissionError):
            os.truncate(path, 0)
        lift(file.fileno(), str(path))
        assert not is_immutable(file.fileno())


@pytest.mark.usefixtures("immutable")
def test_protecting_it_twice_is_fine_and_lifting_gives_everything_back(path, fd):
    assert protect(fd, str(path)) == protection(fd) == IMMUTABLE
    assert is_immutable(fd)
    assert path.stat().st_mode & 0o777 == 0o400
    lift(fd, str(path))
    assert protection(fd) is None
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"other")
    path.unlink()


def test_the_files_other_attributes_are_left_alone(path, fd):
    need_attribute(fd)
    before = attributes(fd) | NO_DUMP_ATTRIBUTE
    set_attributes(fd, before)
    protect(fd, str(path))
    assert attributes(fd) == before | IMMUTABLE_ATTRIBUTE
    lift(fd, str(path))
    assert attributes(fd) == before


@pytest.mark.usefixtures("only_modes")
def test_where_that_cannot_be_had_the_mode_says_read_only(path, fd):
    path.chmod(0o664)
    assert protect(fd, str(path)) == protection(fd) == MODE
    assert path.stat().st_mode & 0o777 == 0o444
    assert protect(fd, str(path)) == MODE
    lift(fd, str(path))
    assert protection(fd) is None
    path.write_bytes(b"other")


@pytest.mark.parametrize(
    ("mode", "found"),
    [(0o444, MODE), (0o400, MODE), (0o000, MODE), (0o600, None), (0o420, None), (0o402, None)],
)
def test_a_file_that_anybody_may_write_is_not_protected(path, fd, mode, found):
    path.chmod(mode)
    assert protection(fd) == found


@pytest.mark.usefixtures("immutable")
def test_a_name_can_be_given_to_another_file_while_the_old_one_stays_mapped(path, fd):
    new = path.with_name("new")
    new.write_bytes(b"new")
    with replaceable(str(path)):
        assert protection(fd) is None
        new.rename(path)
    assert path.read_bytes() == b"new"
    assert os.pread(fd, 9, 0) == b"pages"
    path.write_bytes(b"the new one is not protected")


def test_a_file_that_has_another_name_left_is_protected_again(path, fd):
    need_attribute(fd)
    path.with_name("link").hardlink_to(path)
    protect(fd, str(path))
    with replaceable(str(path)):
        path.unlink()
    assert is_immutable(fd)


@pytest.mark.usefixtures("immutable")
def test_a_name_can_be_removed_while_the_file_stays_mapped(path, fd):
    with replaceable(str(path)):
        path.unlink()
    assert not path.exists()
    assert os.pread(fd, 9, 0) == b"pages"


@pytest.mark.usefixtures("immutable")
@pytest.mark.parametrize("failure", [FileNotFoundError, KeyboardInterrupt])
def test_a_replacement_that_fails_leaves_the_file_protected(path, fd, failure):
    with pytest.raises(failure), replaceable(str(path)):
        raise failure
    assert protection(fd) == IMMUTABLE
    assert is_immutable(fd)
    assert path.stat().st_mode & 0o777 == 0o400


@pytest.mark.usefixtures("immutable")
def test_a_protection_that_cannot_be_lifted_stops_the_replacement(path, fd, monkeypatch):
    refuse_attributes(monkeypatch, SET_ATTRIBUTES)
    reached = []
    with (
        pytest.raises(StoreError, match=f"Lifting the write protection of {path} failed: "),
        replaceable(str(path)),
    ):
        reached.append(path)
    assert reached == []
    assert is_immutable(fd)


def test_a_file_that_is_not_protected_is_not_after_a_failure_either(path, fd):
    with pytest.raises(FileNotFoundError), replaceable(str(path)):
        raise FileNotFoundError
    assert protection(fd) is None


@pytest.mark.usefixtures("only_modes")
def test_a_read_only_mode_needs_no_lifting_to_be_replaced(path, fd):
    protect(fd, str(path))
    new = path.with_name("new")
    new.write_bytes(b"new")
    with replaceable(str(path)):
        assert protection(fd) == MODE
        new.rename(path)
    assert path.read_bytes() == b"new"


@pytest.mark.usefixtures("immutable")
def test_what_a_symlink_leads_to_stays_protected_when_the_link_is_replaced(path, fd):
    link = path.with_name("link")
    link.symlink_to(path)
    with replaceable(str(link)):
        assert protection(fd) == IMMUTABLE
        link.unlink()
    assert path.read_bytes() == b"pages"


def test_what_is_not_there_or_not_protected_needs_nothing(path):
    with replaceable(str(path.with_name("missing"))):
        pass
    with replaceable(str(path)):
        path.unlink()
    assert not path.exists()


@pytest.mark.usefixtures("immutable")
def test_no_descriptor_is_left_open(path):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError), replaceable(str(path)):
        raise FileNotFoundError
    with replaceable(str(path)):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_cannot_be_changed_is_an_error_that_names_it(path, fd, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(StoreError, match=f"^Making read-only {path} failed: Operation not perm"):
        protect(fd, str(path))
    with pytest.raises(StoreError, match=f"^Lifting the write .* {path} failed: Operation not"):
        lift(fd, str(path))
