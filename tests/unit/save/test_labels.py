# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A save of a guest whose QEMU SELinux confines: the image's label, step by step."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _lent_image
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    Confinement,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _run
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._request import SaveRequest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._run import save as save_outcome
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._undo import SaveFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._label import write_label
from ansible_collections.vmfleet.suspend.tests.support.labels import (
    IMAGE_LABEL,
    STORE_LABEL,
    confine,
    label_of,
    needs_labels,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import once
from ansible_collections.vmfleet.suspend.tests.support.observing import printed_by
from ansible_collections.vmfleet.suspend.tests.support.save_checks import save

KILLING = Confinement("apparmor", "libvirt-1", "kill")


@pytest.fixture
def confined(monkeypatch, store):
    needs_labels(store)
    confine(monkeypatch)


@pytest.fixture
def labelled_store(confined, store, monkeypatch):
    """A store whose new files get a label, as SELinux gives it."""
    create = os.open

    def open_labelled(path, flags, *rest, **options):
        fd = create(path, flags, *rest, **options)
        if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE:
            os.setxattr(fd, "security.selinux", STORE_LABEL.encode() + b"\0")
        return fd

    monkeypatch.setattr(os, "open", open_labelled)
    return store


def watched(guest, store, command):
    """Labels of the unfinished image when QEMU gets ``command``, as they are seen."""
    seen = []
    partial = store / ".guest.save.partial"
    once(guest, command, lambda: seen.append(label_of(partial)), first=True)
    return seen


@pytest.mark.parametrize("guest_state", ["stopped", "paused", "running"])
def test_the_image_has_qemus_label_from_before_it_is_handed_over_until_it_is_published(
    guest, labelled_store, image, guest_state
):
    handed = watched(guest, labelled_store, "add-fd")
    written = watched(guest, labelled_store, "migrate")
    result = save(guest, image, guest_state=guest_state)
    assert handed == written == [IMAGE_LABEL]
    assert label_of(image) == STORE_LABEL
    assert result["plan"]["image_label"] == IMAGE_LABEL
    assert f"labelled the image {IMAGE_LABEL} while QEMU has it" in result["actions"]


def test_it_is_the_owners_alone_all_the_time(guest, confined, store, image):
    modes = []
    partial = store / ".guest.save.partial"
    once(guest, "migrate", lambda: modes.append(partial.stat().st_mode & 0o7777))
    save(guest, image)
    assert [*modes, image.stat().st_mode & 0o7777] == [0o600, 0o600]


def test_check_mode_foretells_the_label_and_sets_none(guest, confined, store, image):
    planned = save(guest, image, check_mode=True)
    assert planned["plan"]["image_label"] == IMAGE_LABEL
    assert os.listdir(store) == []


def test_where_nothing_confines_qemu_nothing_is_labelled_and_nothing_is_said(
    guest, image, monkeypatch
):
    monkeypatch.setattr(_lent_image, "write_label", lambda *_arguments: pytest.fail("labelled"))
    result = save(guest, image)
    assert "image_label" not in result["plan"]
    assert "label" not in str(result)


def test_a_label_that_is_denied_ends_the_save_before_qemu_hears_of_it(
    guest, confined, store, image, monkeypatch
):
    def deny(_fd, _label):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(_lent_image, "write_label", deny)
    with pytest.raises(SaveFailed, match="cannot be labelled") as failed:
        save(guest, image)
    assert "running as before" in failed.value.message
    assert guest.commands == []
    assert os.listdir(store) == []


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_profile_that_would_kill_the_guest_is_a_refusal(
    guest, store, image, monkeypatch, check_mode
):
    confine(monkeypatch, KILLING)
    with pytest.raises(Refused, match="would kill it"):
        save(guest, image, check_mode=check_mode)
    assert guest.commands == []
    assert os.listdir(store) == []


def test_a_failed_save_leaves_no_labelled_file(guest, confined, store, image):
    guest.qemu.ends_as = "failed"
    with pytest.raises(SaveFailed):
        save(guest, image)
    assert os.listdir(store) == []


def warnings_of(guest, image):
    request = SaveRequest(
        path=str(image), qmp_socket=str(guest.qmp_socket), qemu_conf="/nonexistent/qemu.conf"
    )
    return asyncio.run(save_outcome(request, check_mode=False)).warnings


def test_a_label_that_could_not_be_given_back_is_a_warning(guest, confined, image, monkeypatch):
    labels = []

    def write_once(fd, label):
        labels.append(label)
        if len(labels) > 1:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write_label(fd, label)

    monkeypatch.setattr(_lent_image, "write_label", write_once)
    assert any("restorecon" in warning for warning in warnings_of(guest, image))
    assert label_of(image) == IMAGE_LABEL


def test_an_image_that_becomes_another_users_is_a_warning(guest, image, monkeypatch):
    monkeypatch.setattr(_run, "owner_warning", lambda *_arguments: ("it belongs to user 65534",))
    assert "it belongs to user 65534" in warnings_of(guest, image)


DYING_SAVE = """
import os, sys
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _guest
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _run
from ansible_collections.vmfleet.suspend.tests.support.drive import do_save
from ansible_collections.vmfleet.suspend.tests.support.labels import SVIRT
_guest.confinement_of = lambda _pid: SVIRT
_run.verify_image = lambda *_arguments: os._exit(0)
do_save(*sys.argv[1:])
sys.exit("it was to die")
"""


def test_what_a_dead_run_labelled_is_labelled_as_a_new_file_by_the_run_that_finishes_it(
    guest, labelled_store, image
):
    """Neither QEMU nor the image is asked what it was before: the guest could have forged that."""
    printed_by(DYING_SAVE, str(guest.qmp_socket), str(image))
    assert label_of(labelled_store / ".guest.save.partial") == IMAGE_LABEL
    result = save(guest, image)
    assert result["plan"]["recovers"]["remedy"] == "finish"
    assert label_of(image) == STORE_LABEL
