# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image that a guest runs from is kept from changing, and let go again."""

from __future__ import annotations

import fcntl
import os

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


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "image.save"
    path.write_bytes(b"pages")
    path.chmod(0o600)
    yield path
    if path.exists():
        with path.open("rb") as file:
            lift(file.fileno(), str(path))


@pytest.fixture
def fd(path):
    with path.open("rb") as file:
        yield file.fileno()


@pytest.fixture
def immutable(path, fd):
    """Protected as strongly as can be; skipped where that is not strong."""
    if protect(fd, str(path)) != IMMUTABLE:
        pytest.skip("files cannot be made immutable here: that needs root and ext4, xfs or btrfs")


@pytest.fixture
def only_modes(monkeypatch):
    def refuse(*_arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)


def test_an_ordinary_file_is_not_protected(fd):
    assert protection(fd) is None


@pytest.mark.usefixtures("immutable")
@pytest.mark.parametrize(
    "attack",
    [
        lambda path, _new: path.open("r+b"),
        lambda path, _new: path.open("wb"),
        lambda path, _new: os.truncate(path, 0),
        lambda path, _new: path.unlink(),
        lambda path, new: path.rename(new),
        lambda path, new: new.replace(path),
        lambda path, _new: path.chmod(0o644),
    ],
    ids=["write", "overwrite", "truncate", "remove", "rename", "replace", "chmod"],
)
def test_an_immutable_file_stays_as_it_is_and_where_it_is(path, attack):
    new = path.with_name("new")
    new.write_bytes(b"new")
    with pytest.raises(PermissionError):
        attack(path, new)
    assert path.read_bytes() == b"pages"


@pytest.mark.usefixtures("immutable")
def test_protecting_it_twice_is_fine_and_lifting_gives_everything_back(path, fd):
    assert protect(fd, str(path)) == protection(fd) == IMMUTABLE
    lift(fd, str(path))
    assert protection(fd) is None
    path.write_bytes(b"other")
    path.unlink()


@pytest.mark.usefixtures("only_modes")
def test_where_that_cannot_be_had_the_mode_says_read_only(path, fd):
    path.chmod(0o664)
    assert protect(fd, str(path)) == protection(fd) == MODE
    assert path.stat().st_mode & 0o777 == 0o444
    lift(fd, str(path))
    assert protection(fd) is None


@pytest.mark.usefixtures("immutable")
def test_a_name_can_be_given_to_another_file_while_the_old_one_stays_mapped(path, fd):
    new = path.with_name("new")
    new.write_bytes(b"new")
    with replaceable(str(path)):
        new.rename(path)
    assert path.read_bytes() == b"new"
    assert os.pread(fd, 9, 0) == b"pages"


@pytest.mark.usefixtures("immutable")
def test_a_replacement_that_fails_leaves_the_file_protected(path, fd):
    def replace_by_nothing():
        with replaceable(str(path)):
            os.rename(path.with_name("missing"), path)

    with pytest.raises(FileNotFoundError):
        replace_by_nothing()
    assert protection(fd) == IMMUTABLE


def test_what_is_not_there_or_not_protected_needs_nothing(path):
    with replaceable(str(path.with_name("missing"))):
        pass
    with replaceable(str(path)):
        path.unlink()
    assert not path.exists()


def test_a_file_that_cannot_be_changed_is_an_error_that_names_it(path, fd, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(StoreError, match=f"read-only {path} failed: Operation not permitted"):
        protect(fd, str(path))
    with pytest.raises(StoreError, match=f"{path} failed: Operation not permitted"):
        lift(fd, str(path))
