# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is lent to a confined QEMU and taken back: real labels on real files."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _lent_image
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._image_access import (
    NOTHING_NEEDED,
    ImageAccess,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._lent_image import (
    Lent,
    give_back,
    lend,
    lend_pipe,
    look_at_access,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    Confinement,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._label import (
    new_label,
    read_label,
    write_label,
)
from ansible_collections.vmfleet.suspend.tests.support.labels import (
    IMAGE_LABEL,
    STORE_LABEL,
    needs_labels,
)

OTHER_GUEST = "system_u:object_r:svirt_image_t:s0:c5,c6"
NEEDED = ImageAccess(IMAGE_LABEL, enforced=True)


@pytest.fixture
def path(tmp_path):
    needs_labels(tmp_path)
    (tmp_path / "a.save").write_bytes(b"image")
    return str(tmp_path / "a.save")


@pytest.fixture
def fd(path):
    # For reading: a restore has no more.
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.mark.parametrize(
    ("label", "known_before", "given_back"),
    [
        (STORE_LABEL, STORE_LABEL, STORE_LABEL),
        ("", "", ""),
        # Left by a run that died, or by libvirt: the one of a new file.
        (IMAGE_LABEL, None, ""),
        (OTHER_GUEST, None, ""),
    ],
)
def test_the_label_lasts_as_long_as_the_loan(path, fd, label, known_before, given_back):
    write_label(fd, label)
    assert lend(fd, path, NEEDED) == Lent(known_before)
    assert read_label(fd) == IMAGE_LABEL
    assert give_back(fd, path, IMAGE_LABEL, known_before) == ()
    assert read_label(fd) == given_back


def test_where_nothing_is_needed_nothing_is_touched(path, fd, monkeypatch):
    monkeypatch.setattr(_lent_image, "write_label", lambda *_arguments: pytest.fail("labelled"))
    write_label(fd, STORE_LABEL)
    assert lend(fd, path, NOTHING_NEEDED) == Lent()
    assert give_back(fd, path, None) == ()


def test_a_label_that_somebody_changed_meanwhile_stays(path, fd):
    lend(fd, path, NEEDED)
    write_label(fd, STORE_LABEL)
    assert give_back(fd, path, IMAGE_LABEL, "") == ()
    assert read_label(fd) == STORE_LABEL


def refusing(number):
    def write(_fd, _label):
        raise OSError(number, os.strerror(number))

    return write


def test_a_label_that_may_not_be_set_is_a_refusal(path, fd, monkeypatch):
    monkeypatch.setattr(_lent_image, "write_label", refusing(errno.EPERM))
    with pytest.raises(Refused, match=r"cannot be labelled .*svirt_image_t"):
        lend(fd, path, NEEDED)
    (warning,) = lend(fd, path, ImageAccess(IMAGE_LABEL, enforced=False)).warnings
    assert "permissive" in warning


def test_a_filesystem_without_labels_is_a_warning(path, fd, monkeypatch):
    monkeypatch.setattr(_lent_image, "write_label", refusing(errno.EOPNOTSUPP))
    lent = lend(fd, path, NEEDED)
    assert lent.label_before is None
    assert "cannot be labelled one by one" in lent.warnings[0]


def test_a_label_that_cannot_be_given_back_is_a_warning(path, fd, monkeypatch):
    lent = lend(fd, path, NEEDED)
    monkeypatch.setattr(_lent_image, "write_label", refusing(errno.EROFS))
    (warning,) = give_back(fd, path, IMAGE_LABEL, lent.label_before)
    assert "restorecon" in warning
    assert IMAGE_LABEL in warning


def test_asking_what_a_new_file_is_labelled_leaves_no_file(tmp_path):
    assert new_label(str(tmp_path)) == ""
    assert os.listdir(tmp_path) == []


def test_a_pipe_that_cannot_be_labelled_is_left_to_qemu():
    ends = os.pipe()
    try:
        lend_pipe(ends[1], NEEDED)
    finally:
        for end in ends:
            os.close(end)


def test_apparmor_is_asked_about_the_file_that_the_path_leads_to(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    asked = []

    def allows(profile, path, *, write):
        asked.append((profile, path, write))
        return True

    monkeypatch.setattr(_lent_image, "apparmor_allows", allows)
    own = Confinement("apparmor", "ansible", "enforce")
    monkeypatch.setattr(_lent_image, "confinement_of", lambda _pid: own)
    process = Confinement("apparmor", "libvirt-1", "enforce")
    path = str(tmp_path / "link" / ".a.save.partial")
    assert look_at_access(process, path, write=True) == NOTHING_NEEDED
    assert asked == [("libvirt-1", str(tmp_path / "store" / ".a.save.partial"), True)]
