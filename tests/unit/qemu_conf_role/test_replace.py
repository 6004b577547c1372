# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing the file: only the one that was looked at, and the old one is kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import pytest

from ansible_collections.vmfleet.suspend.roles.qemu_conf.files.host import replace


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "etc" / "qemu.conf"
    path.parent.mkdir()
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text("new")
    return path


def sha256(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def files(conf):
    return sorted(path.name for path in conf.parent.iterdir())


def test_the_old_file_itself_stays_as_the_backup(conf, text):
    conf.write_text("old")
    conf.chmod(0o640)
    inode = conf.stat().st_ino
    backup = replace.replace(str(conf), str(text), sha256("old"))
    assert conf.read_text() == "new"
    assert conf.stat().st_mode & 0o777 == 0o640
    kept = conf.parent / backup
    assert (kept.read_text(), kept.stat().st_ino) == ("old", inode)
    assert files(conf) == ["qemu.conf", kept.name]
    assert kept.name.startswith("qemu.conf.")
    assert kept.name.endswith("~")


def test_the_files_time_is_that_of_replacing(conf, text):
    conf.write_text("old")
    for path in (conf, text):
        os.utime(path, (0, 0))
    before = time.time()
    replace.replace(str(conf), str(text), sha256("old"))
    assert conf.stat().st_mtime >= before - 0.1  # the filesystem's clock is coarse


@pytest.mark.parametrize(
    ("found", "expected"),
    [("edited", sha256("old")), (None, sha256("old")), ("made meanwhile", None)],
    ids=["edited", "removed", "made"],
)
@pytest.mark.parametrize("removing", [False, True])
def test_what_was_changed_meanwhile_is_left_alone(conf, text, found, expected, removing):
    if found is not None:
        conf.write_text(found)
    with pytest.raises(replace.Changed):
        replace.replace(str(conf), None if removing else str(text), expected)
    assert files(conf) == ([] if found is None else ["qemu.conf"])
    if found is not None:
        assert conf.read_text() == found


def test_where_there_was_no_file_there_is_one_for_root_alone_and_no_backup(conf, text):
    assert replace.replace(str(conf), str(text), None) is None
    assert conf.read_text() == "new"
    assert conf.stat().st_mode & 0o777 == 0o600
    assert files(conf) == ["qemu.conf"]


def test_without_a_text_the_file_goes_and_its_backup_stays(conf):
    conf.write_text("old")
    backup = replace.replace(str(conf), None, sha256("old"))
    assert not conf.exists()
    assert (conf.parent / backup).read_text() == "old"


def test_a_link_stays_a_link(conf, text, tmp_path):
    target = tmp_path / "etc" / "real.conf"
    target.write_text("old")
    conf.symlink_to(target)
    replace.replace(str(conf), str(text), sha256("old"))
    assert conf.is_symlink()
    assert target.read_text() == "new"


def test_what_a_killed_run_left_is_written_over(conf, text):
    conf.write_text("old")
    (conf.parent / ".qemu.conf.vmfleet-new").write_text("half")
    replace.replace(str(conf), str(text), sha256("old"))
    assert conf.read_text() == "new"
    assert ".qemu.conf.vmfleet-new" not in files(conf)


def test_the_program_says_why_it_changed_nothing(conf, text):
    conf.write_text("edited")
    ran = subprocess.run(
        [sys.executable, replace.__file__, conf, f"--text={text}", f"--expect={sha256('old')}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "was changed by someone else meanwhile" in ran.stderr
