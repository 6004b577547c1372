# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image appears: whole under its name or not at all, whenever the machine goes down."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    PartialImage,
    partial_path,
)
from ansible_collections.vmfleet.suspend.tests.support.images import libvirt_prefix

PARTIAL, COMPLETE = b"LibvirtQemudPart", b"LibvirtQemudSave"
DRAFT = libvirt_prefix("<domain>draft</domain>", complete=False, padding_bytes=600)
FINAL = libvirt_prefix("<domain>final</domain>", complete=False, padding_bytes=600)
STREAM = b"QEVM and what follows"
OLD = b"the image that was here before"


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "web01.save")


@pytest.fixture
def image(target):
    created = PartialImage.create(target)
    yield created
    created.close()


def written(image):
    """An image at the point where QEMU has completed."""
    image.write_prefix(DRAFT)
    os.pwrite(image.fd, STREAM, len(DRAFT))
    image.sync()
    return image


def content(path):
    with open(path, "rb") as file:
        return file.read()


class PowerLoss(BaseException):
    """The machine goes down: nothing after it runs."""


class Disk:
    """Names every write, flush and rename; goes down before the ``fails_at``-th of them."""

    def __init__(self, monkeypatch, fails_at=None):
        self.steps = []
        self._fails_at = fails_at
        for name in ("pwrite", "fsync", "rename"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, real):
        def step(first, *rest):
            if len(self.steps) == self._fails_at:
                raise PowerLoss
            if name == "pwrite":
                self.steps.append(f"write {bytes(rest[0][:16]).decode()}")
            elif name == "fsync":
                directory = stat.S_ISDIR(os.fstat(first).st_mode)
                self.steps.append("flush directory" if directory else "flush image")
            else:
                self.steps.append("rename")
            return real(first, *rest)

        return step


PUBLISHING = [
    "write LibvirtQemudPart",
    "flush image",
    "write LibvirtQemudSave",
    "flush image",
    "rename",
    "flush directory",
]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_new_image_is_private_whatever_the_umask(target, umask):
    before = os.umask(umask)
    try:
        image = PartialImage.create(target)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(image.fd).st_mode) == 0o600
    image.close()


def test_it_is_written_beside_its_target_under_a_hidden_name(image, target, tmp_path):
    assert image.path == partial_path(target) == str(tmp_path / ".web01.save.partial")
    assert os.listdir(tmp_path) == [".web01.save.partial"]
    assert os.get_inheritable(image.fd) is False


def test_its_beginning_and_its_name_are_durable_before_the_guest_is_touched(image, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as m:
        disk = Disk(m)
        image.write_prefix(DRAFT)
    assert len(os.listdir("/proc/self/fd")) == before
    assert disk.steps == ["write LibvirtQemudPart", "flush image", "flush directory"]
    assert content(image.path) == DRAFT


def test_what_qemu_wrote_is_flushed_on_request(image, monkeypatch):
    with monkeypatch.context() as m:
        disk = Disk(m)
        image.sync()
    assert disk.steps == ["flush image"]


def test_an_image_that_could_not_be_locked_leaves_nothing_behind(target, tmp_path, monkeypatch):
    def refuse(_fd, _operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as m:
        m.setattr(fcntl, "flock", refuse)
        with pytest.raises(StoreError, match="No locks available"):
            PartialImage.create(target)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_published_image_has_the_final_prefix_and_what_qemu_wrote(image, target, tmp_path):
    written(image).publish(FINAL)
    assert content(target) == COMPLETE + FINAL[16:] + STREAM
    assert os.listdir(tmp_path) == ["web01.save"]


def test_the_prefix_that_an_old_qemu_truncated_away_is_written_again(image, target):
    image.write_prefix(DRAFT)
    os.truncate(image.fd, 0)
    os.pwrite(image.fd, STREAM, len(DRAFT))
    image.publish(FINAL)
    assert content(target) == COMPLETE + FINAL[16:] + STREAM


def test_every_step_of_publishing_is_durable_before_the_next(image, monkeypatch):
    written(image)
    with monkeypatch.context() as m:
        disk = Disk(m)
        image.publish(FINAL)
    assert disk.steps == PUBLISHING


@pytest.mark.parametrize("fails_at", range(len(PUBLISHING)))
def test_a_power_loss_leaves_the_old_image_or_the_whole_new_one(
    image, target, monkeypatch, fails_at
):
    with open(target, "wb") as file:
        file.write(OLD)
    written(image)
    with monkeypatch.context() as m:
        Disk(m, fails_at)
        with pytest.raises(PowerLoss):
            image.publish(FINAL)
    whole = COMPLETE + FINAL[16:] + STREAM
    if PUBLISHING[fails_at] == "flush directory":
        assert content(target) == whole
        return
    assert content(target) == OLD
    left = content(image.path)
    assert left == whole or left[:16] == PARTIAL
    assert left.endswith(STREAM)


@pytest.mark.parametrize("operation", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_what_the_filesystem_refuses_is_a_store_error_with_path_and_errno(
    image, monkeypatch, operation, error
):
    def refuse(*_arguments):
        raise OSError(error, os.strerror(error))

    written(image)
    with monkeypatch.context() as m:
        m.setattr(os, operation, refuse)
        with pytest.raises(StoreError, match=os.strerror(error)) as refused:
            image.publish(FINAL)
    assert refused.value.facts["errno"] == error
    assert "web01.save" in refused.value.facts["path"]


def test_a_write_that_lands_in_pieces_is_carried_on(image, monkeypatch):
    real = os.pwrite
    with monkeypatch.context() as m:
        m.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:100], at))
        image.write_prefix(DRAFT)
    assert content(image.path) == DRAFT


@pytest.mark.parametrize("published", [False, True])
def test_discarding_removes_the_image_under_whichever_name_it_has(image, tmp_path, published):
    if published:
        written(image).publish(FINAL)
    image.discard()
    assert os.listdir(tmp_path) == []


def test_discarding_never_removes_what_someone_else_put_there(image, target):
    os.unlink(image.path)
    for path in (image.path, target):
        with open(path, "wb") as file:
            file.write(OLD)
    image.discard()
    assert content(image.path) == content(target) == OLD


@pytest.mark.parametrize("replaced", [False, True])
def test_an_image_whose_name_was_taken_from_it_is_not_published(image, target, replaced):
    written(image)
    os.unlink(image.path)
    if replaced:
        with open(image.path, "wb") as file:
            file.write(OLD)
    with pytest.raises(StoreError, match="removed or replaced"):
        image.publish(FINAL)
    assert not os.path.exists(target)


def test_closing_releases_the_lock(image, target):
    image.discard()
    image.close()
    again = PartialImage.create(target)
    again.close()
    image.fd = os.open(os.devnull, os.O_RDONLY)  # for the fixture
