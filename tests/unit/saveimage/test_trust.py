# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who could have written an image: the file itself, and every step of the way to it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._trust import (
    distrust,
    weakness,
)

ROOT, INVOKER, OTHER = 0, 1000, 1001
FILE, DIRECTORY, LINK, STICKY = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_ISVTX
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.mark.parametrize("owner", [ROOT, INVOKER])
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(FILE | 0o600, id="image"),
        pytest.param(FILE | 0o644, id="image that all may read"),
        pytest.param(DIRECTORY | 0o755, id="directory"),
        pytest.param(DIRECTORY | STICKY | 0o777, id="sticky directory"),
        pytest.param(DIRECTORY | STICKY | 0o770, id="sticky directory of a group"),
        pytest.param(LINK | 0o777, id="symlink, whose mode means nothing"),
    ],
)
def test_what_root_or_the_invoker_alone_can_change_is_trusted(owner, mode):
    assert weakness(mode, owner, INVOKER) is None


@pytest.mark.parametrize(
    ("mode", "owner", "why"),
    [
        (FILE | 0o600, OTHER, "it belongs to user 1001"),
        (DIRECTORY | 0o755, OTHER, "it belongs to user 1001"),
        (DIRECTORY | STICKY | 0o777, OTHER, "it belongs to user 1001"),
        (LINK | 0o777, OTHER, "it belongs to user 1001"),
        (FILE | 0o660, ROOT, "others may write to it (mode 0660)"),
        (FILE | 0o602, INVOKER, "others may write to it (mode 0602)"),
        (FILE | STICKY | 0o666, ROOT, "others may write to it (mode 1666)"),
        (DIRECTORY | 0o775, ROOT, "others may write to it (mode 0775)"),
        (DIRECTORY | stat.S_ISGID | 0o2770, INVOKER, "others may write to it (mode 2770)"),
    ],
)
def test_what_somebody_else_can_change_is_not(mode, owner, why):
    assert weakness(mode, owner, INVOKER) == why


def test_what_belongs_to_a_user_is_not_trusted_by_root():
    assert weakness(FILE | 0o600, INVOKER, ROOT) == "it belongs to user 1000"


@pytest.fixture
def home(tmp_path):
    """A directory that is safe, whatever pytest was told to put its own into."""
    unsafe = [
        directory
        for directory in (tmp_path, *tmp_path.parents)
        for status in [directory.stat()]
        if weakness(status.st_mode, status.st_uid, os.geteuid()) is not None
    ]
    if unsafe:
        pytest.skip(f"{unsafe[-1]} is not this user's alone; run pytest with another --basetemp")
    assert tmp_path == tmp_path.resolve()
    return tmp_path


@pytest.fixture
def image(home):
    """An image two directories down."""
    path = home / "store" / "web" / "web01.save"
    path.parent.mkdir(parents=True, mode=0o755)
    path.write_bytes(b"LibvirtQemudSave")
    for part, mode in ((path, 0o600), (path.parent, 0o755), (path.parents[1], 0o755)):
        part.chmod(mode)
    return path


def asked(path, user_id=None, opened=None):
    """What `distrust` says of ``path``, open at ``opened`` or there."""
    fd = os.open(opened or path, os.O_RDONLY)
    try:
        return distrust(fd, str(path), os.geteuid() if user_id is None else user_id)
    finally:
        os.close(fd)


def test_an_image_that_nobody_else_can_reach_is_trusted(image):
    assert asked(image) is None


@pytest.mark.parametrize(
    "way", ["web01.save", "./web01.save", "../web/web01.save", "..//web/./web01.save"]
)
def test_a_relative_path_begins_at_the_working_directory(image, monkeypatch, way):
    monkeypatch.chdir(image.parent)
    assert asked(way) is None
    image.parents[1].chmod(0o777)
    assert str(image.parents[1]) in str(asked(way))


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["image", "its directory", "the one above"])
@pytest.mark.parametrize("mode", [0o775, 0o757], ids=["group", "all"])
def test_one_writable_step_is_enough_and_is_named(image, depth, mode):
    step = (image, *image.parents)[depth]
    step.chmod(mode)
    said = str(asked(image))
    assert said.startswith(f"{step} is not safe: others may write to it (mode {mode:04o}).")
    assert "chmod go-w" in said


@as_root
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["image", "its directory", "the one above"])
def test_one_step_of_another_user_is_enough_and_is_named(image, depth):
    step = (image, *image.parents)[depth]
    os.chown(step, OTHER, OTHER)
    said = str(asked(image))
    assert said.startswith(f"{step} is not safe: it belongs to user {OTHER}.")
    assert "chown" in said


@as_root
def test_the_invokers_own_file_below_directories_of_root_is_trusted(image):
    os.chown(image, INVOKER, INVOKER)
    assert asked(image, user_id=INVOKER) is None
    assert asked(image, user_id=OTHER) is not None


def test_in_a_sticky_directory_own_entries_are_safe(image):
    image.parent.chmod(0o1777)
    assert asked(image) is None


@as_root
def test_in_a_sticky_directory_the_entry_of_another_is_not(image):
    image.parents[1].chmod(0o1777)
    os.chown(image.parent, OTHER, OTHER)
    assert str(image.parent) in str(asked(image))


def test_an_image_in_the_systems_temporary_directory_is_trusted(home):
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory, "web01.save")
        path.touch(0o600)
        assert asked(path) is None


@pytest.mark.parametrize(
    "target",
    [
        "{web}",
        "store/web",
        "./store/../store/web",
        "../{home}/store//web",
        "second",
        "{home}/second",
    ],
)
def test_the_way_through_a_symlink_is_followed_to_its_end(home, image, target):
    (home / "second").symlink_to("store/web")
    link = home / "link"
    link.symlink_to(target.format(web=image.parent, home=home if target[0] == "{" else home.name))
    assert asked(link / image.name) is None
    image.parents[1].chmod(0o777)
    assert str(asked(link / image.name)).startswith(f"{image.parents[1]} is not safe")


def test_dots_behind_a_symlink_lead_where_the_kernel_goes(home, image):
    """To the parent of the symlink's target, not of the symlink."""
    (home / "link").symlink_to(image.parent)
    (home / "web").mkdir(0o755)
    way = f"{home}/link/../web/{image.name}"
    assert asked(way) is None
    image.parents[1].chmod(0o777)
    assert str(asked(way)).startswith(f"{image.parents[1]} is not safe")


def test_dots_in_a_symlinks_target_lead_where_the_kernel_goes(home, image):
    (home / "inner").symlink_to(image.parent)
    (home / "link").symlink_to(f"inner/../web/{image.name}")
    assert asked(home / "link") is None
    image.parents[1].chmod(0o777)
    assert str(asked(home / "link")).startswith(f"{image.parents[1]} is not safe")


@as_root
def test_a_symlink_of_another_user_is_not_safe_wherever_it_leads(home, image):
    link = home / "link"
    link.symlink_to(image.parent)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    assert str(asked(link / image.name)).startswith(f"{link} is not safe: it belongs to user")


def test_a_symlink_in_a_directory_that_others_write_to_is_not_safe(home, image):
    loose = home / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "link").symlink_to(image.parent)
    assert str(asked(loose / "link" / image.name)).startswith(f"{loose} is not safe")


def test_a_way_that_leads_in_circles_ends(home, image):
    (home / "one").symlink_to("two")
    (home / "two").symlink_to("one")
    said = str(asked(home / "one" / image.name, opened=image))
    assert "too many symlinks" in said
    assert "chmod" not in said


def test_as_many_symlinks_as_the_kernel_follows_are_followed(home, image):
    at: Path = image
    for number in range(40):
        link = home / f"link{number}"
        link.symlink_to(at)
        at = link
    assert asked(at) is None
    (home / "last").symlink_to(at)
    with pytest.raises(OSError, match="Too many levels"):
        asked(home / "last")
    assert "too many symlinks" in str(asked(home / "last", opened=image))


def test_a_file_exchanged_since_it_was_opened_is_told(image):
    fd = os.open(image, os.O_RDONLY)
    try:
        image.rename(image.with_suffix(".away"))
        image.write_bytes(b"another")
        image.chmod(0o600)
        said = str(distrust(fd, str(image), os.geteuid()))
    finally:
        os.close(fd)
    assert "another file" in said
    assert "chown" not in said


@pytest.mark.parametrize("gone", [0, 1, 2], ids=["image", "its directory", "the one above"])
def test_a_step_that_vanished_since_is_told(image, gone):
    fd = os.open(image, os.O_RDONLY)
    step = (image, *image.parents)[gone]
    try:
        step.rename(step.with_name("away"))
        said = str(distrust(fd, str(image), os.geteuid()))
    finally:
        os.close(fd)
    assert said.startswith(f"The way to {image} cannot be followed: No such file or directory")
    assert f"({step})" in said


def test_a_directory_that_became_a_file_is_told(image):
    fd = os.open(image, os.O_RDONLY)
    try:
        image.parent.rename(image.parent.with_name("away"))
        image.parent.touch(0o600)
        said = str(distrust(fd, str(image), os.geteuid()))
    finally:
        os.close(fd)
    assert "Not a directory" in said


def test_a_working_directory_that_is_gone_is_told(home, image, monkeypatch):
    here = home / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert "working directory" in str(asked("web01.save", opened=image))
    assert asked(image) is None
