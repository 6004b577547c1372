# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore into a QEMU that SELinux confines: the image's label, step by step."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _lent_image
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._confinement import (
    UNCONFINED,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import RestoreFailed
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._request import (
    RestoreRequest,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._run import (
    restore as restore_outcome,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save
from ansible_collections.vmfleet.suspend.tests.support.labels import (
    IMAGE_LABEL,
    STORE_LABEL,
    confine,
    label_of,
    needs_labels,
    set_label,
)
from ansible_collections.vmfleet.suspend.tests.support.model_guest import (
    described,
    model_guest,
    once,
)
from ansible_collections.vmfleet.suspend.tests.support.observing import printed_by


@pytest.fixture
def confined(monkeypatch, tmp_path):
    needs_labels(tmp_path)
    confine(monkeypatch)


@pytest.fixture
def labelled(confined, image):
    set_label(image, STORE_LABEL)
    return image


def restore(qemu, image, **options):
    return do_restore(qemu.qmp_socket, image, **options)


def watched(qemu, image, command):
    """Labels of the image when QEMU gets ``command``, as they are seen."""
    seen = []
    once(qemu, command, lambda: seen.append(label_of(image)), first=True)
    return seen


def test_the_image_has_qemus_label_until_it_is_loaded(qemu, labelled):
    handed = watched(qemu, labelled, "add-fd")
    loaded = watched(qemu, labelled, "migrate-incoming")
    continued = watched(qemu, labelled, "cont")
    result = restore(qemu, labelled)
    assert handed == loaded == [IMAGE_LABEL]
    assert continued == [STORE_LABEL]
    assert label_of(labelled) == STORE_LABEL
    assert result["plan"]["image_label"] == IMAGE_LABEL


def test_check_mode_foretells_the_label_and_sets_none(qemu, labelled):
    assert restore(qemu, labelled, check_mode=True)["plan"]["image_label"] == IMAGE_LABEL
    assert label_of(labelled) == STORE_LABEL


def test_where_nothing_confines_qemu_nothing_is_labelled_and_nothing_is_said(
    qemu, image, monkeypatch
):
    monkeypatch.setattr(_lent_image, "write_label", lambda *_arguments: pytest.fail("labelled"))
    assert "label" not in str(restore(qemu, image))


def test_a_load_that_fails_gives_the_label_back(qemu, labelled):
    qemu.qemu.ends_as = "failed"
    with pytest.raises(RestoreFailed):
        restore(qemu, labelled)
    assert label_of(labelled) == STORE_LABEL
    assert described(labelled).state == "ready"


def test_a_label_that_is_denied_is_a_refusal_before_qemu_hears_of_it(qemu, labelled, monkeypatch):
    def deny(_fd, _label):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(_lent_image, "write_label", deny)
    with pytest.raises(Refused, match="cannot be labelled"):
        restore(qemu, labelled)
    assert "add-fd" not in qemu.commands
    assert "stop" not in qemu.commands
    assert described(labelled).state == "ready"


DYING_RESTORE = """
import os, sys
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu import _guest
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _load
from ansible_collections.vmfleet.suspend.tests.support.drive import do_restore, do_save
from ansible_collections.vmfleet.suspend.tests.support.labels import SVIRT
_guest.confinement_of = lambda _pid: SVIRT
_load.note_loaded = lambda *_arguments: os._exit(0)
do_restore(*sys.argv[1:])
sys.exit("it was to die")
"""


def test_what_a_dead_run_labelled_is_labelled_as_a_new_file_by_the_next(qemu, labelled):
    printed_by(DYING_RESTORE, str(qemu.qmp_socket), str(labelled))
    assert label_of(labelled) == IMAGE_LABEL
    result = restore(qemu, labelled)
    assert result["plan"]["recovers"]["remedy"] == "finish"
    assert label_of(labelled) == ""  # of a new file there
    assert result["guest"]["state"] == "running"


def warnings_of(qemu, image):
    request = RestoreRequest(path=str(image), qmp_socket=str(qemu.qmp_socket))
    return asyncio.run(restore_outcome(request, check_mode=False)).plan.warnings


@pytest.mark.parametrize("stays_confined", [True, False])
def test_a_guest_that_is_no_longer_confined_is_a_warning(
    qemu, confined, tmp_path, monkeypatch, stays_confined
):
    (tmp_path / "source").mkdir()
    path = tmp_path / "confined.save"
    with model_guest(tmp_path / "source") as source:
        do_save(source.qmp_socket, path)
    if not stays_confined:
        confine(monkeypatch, UNCONFINED)
    said = [words for words in warnings_of(qemu, path) if "confined by SELinux" in words]
    assert bool(said) is not stays_confined
