# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partial, ready, spent: what an image says of itself, also when the change was cut short."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._header import (
    ImageFormat,
    SaveHeader,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._life import (
    LifeState,
    annotate,
    life_block,
    life_notes,
    life_state,
    mark_ready,
    mark_spent,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._prefix import (
    build_prefix,
    plan_prefix,
    read_prefix,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._record import (
    LIFE_TAG,
    pack_block,
)
from ansible_collections.vmfleet.suspend.tests.support.images import libvirt_prefix

STREAM = b"QEVM and what follows"
XML = "<domain><name>web01</name></domain>"
NOTES = {"spent_by": "a test"}


def our_image(state, *, complete):
    header = SaveHeader(complete, 3, 0, True, ImageFormat.RAW, features=1)
    layout = plan_prefix(XML, None, 4096)
    return build_prefix(layout, header, XML, None, {"a": 1}, life_block(state, NOTES)) + STREAM


@contextlib.contextmanager
def opened(path, data=None):
    if data is not None:
        path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def state_of(path):
    with opened(path) as fd:
        return life_state(read_prefix(fd, str(path)))


class PowerLoss(BaseException):
    """The machine goes down: nothing after it runs."""


class Disk:
    """Counts writes and flushes; goes down before the ``fails_at``-th of them."""

    def __init__(self, monkeypatch, fails_at=None):
        self.steps = []
        self._fails_at = fails_at
        for name in ("pwrite", "fsync"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, real):
        def step(fd, *arguments):
            if len(self.steps) == self._fails_at:
                raise PowerLoss
            self.steps.append((name, arguments[-1]) if arguments else (name,))
            return real(fd, *arguments)

        return step


@pytest.mark.parametrize(
    ("complete", "block", "expected"),
    [
        (True, LifeState.READY, LifeState.READY),
        (True, LifeState.PARTIAL, LifeState.READY),
        (True, LifeState.SPENT, LifeState.READY),
        (True, None, LifeState.READY),
        (False, LifeState.SPENT, LifeState.SPENT),
        (False, LifeState.PARTIAL, LifeState.PARTIAL),
        (False, LifeState.READY, LifeState.PARTIAL),
        (False, None, LifeState.PARTIAL),
    ],
)
def test_the_magic_decides_and_the_life_block_only_explains_a_partial_one(
    tmp_path, complete, block, expected
):
    if block is None:
        data = libvirt_prefix(complete=complete) + STREAM
    else:
        data = our_image(block, complete=complete)
    path = tmp_path / "image"
    path.write_bytes(data)
    assert state_of(path) is expected


def test_a_damaged_life_block_leaves_the_magics_word(tmp_path):
    data = bytearray(our_image(LifeState.SPENT, complete=False))
    data[data.index(LIFE_TAG) + 60] ^= 1
    path = tmp_path / "image"
    path.write_bytes(data)
    assert state_of(path) is LifeState.PARTIAL


def test_spent_and_ready_again_say_why_and_leave_every_other_byte_alone(tmp_path):
    path = tmp_path / "image"
    original = our_image(LifeState.READY, complete=True)
    with opened(path, original) as fd:
        assert mark_spent(fd, str(path), {"loaded_into": {"pid": 7}}) is True
        prefix = read_prefix(fd, str(path))
        assert life_state(prefix) is LifeState.SPENT
        assert life_notes(prefix) == {"loaded_into": {"pid": 7}}
        assert path.read_bytes().startswith(b"LibvirtQemudPart")
        mark_ready(fd, str(path), NOTES)
        assert life_state(read_prefix(fd, str(path))) is LifeState.READY
    assert path.read_bytes() == original


@pytest.mark.parametrize("fails_at", range(4))
def test_marking_spent_that_is_cut_short_leaves_a_ready_image_until_it_is_spent(
    tmp_path, monkeypatch, fails_at
):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd, monkeypatch.context() as m:
        Disk(m, fails_at)
        with pytest.raises(PowerLoss):
            mark_spent(fd, str(path), NOTES)
    # The last step flushes the magic: whoever was told "spent" finds it so.
    assert state_of(path) is (LifeState.READY if fails_at < 3 else LifeState.SPENT)


@pytest.mark.parametrize("fails_at", range(4))
def test_marking_ready_that_is_cut_short_leaves_a_spent_image_until_it_is_ready(
    tmp_path, monkeypatch, fails_at
):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.SPENT, complete=False)) as fd, monkeypatch.context() as m:
        Disk(m, fails_at)
        with pytest.raises(PowerLoss):
            mark_ready(fd, str(path), NOTES)
    assert state_of(path) is (LifeState.SPENT if fails_at == 0 else LifeState.READY)


def test_each_of_the_two_writes_is_durable_before_the_next(tmp_path, monkeypatch):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd:
        life = read_prefix(fd, str(path)).life_offset_bytes
        with monkeypatch.context() as m:
            disk = Disk(m)
            mark_spent(fd, str(path), NOTES)
            spent, disk.steps = disk.steps, []
            mark_ready(fd, str(path), NOTES)
    assert spent == [("pwrite", life), ("fsync",), ("pwrite", 0), ("fsync",)]
    assert disk.steps == [("pwrite", 0), ("fsync",), ("pwrite", life), ("fsync",)]


def test_the_life_block_is_one_sector_written_at_once(tmp_path):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd:
        offset = read_prefix(fd, str(path)).life_offset_bytes
        mark_spent(fd, str(path), NOTES)
    block = pack_block(LIFE_TAG, life_block(LifeState.SPENT, NOTES))
    assert offset is not None and offset % 512 == 0
    assert path.read_bytes()[offset : offset + 512] == block.ljust(512, b"\0")


def test_notes_that_need_more_than_a_sector_are_a_defect_and_change_nothing(tmp_path):
    path = tmp_path / "image"
    original = our_image(LifeState.READY, complete=True)
    with opened(path, original) as fd, pytest.raises(ValueError, match="sector"):
        mark_spent(fd, str(path), {"words": "x" * 500})
    assert path.read_bytes() == original


@given(
    xml_bytes=st.integers(0, 1200),
    padding_bytes=st.integers(0, 3000) | st.just(65536),
    cookie=st.sampled_from([None, "<cookie/>"]),
)
def test_an_image_of_libvirts_is_marked_in_its_padding_and_keeps_text_and_stream(
    tmp_path_factory, xml_bytes, padding_bytes, cookie
):
    path = tmp_path_factory.mktemp("life") / "image"
    prefix_bytes = libvirt_prefix("x" * xml_bytes, cookie, padding_bytes)
    text_end = len(prefix_bytes) - padding_bytes
    original = prefix_bytes + STREAM
    with opened(path, original) as fd:
        explained = mark_spent(fd, str(path), NOTES)
        prefix = read_prefix(fd, str(path))
        marked = path.read_bytes()
        assert marked[16:text_end] == original[16:text_end]
        assert marked[len(prefix_bytes) :] == STREAM
        assert life_state(prefix) is (LifeState.SPENT if explained else LifeState.PARTIAL)
        assert life_notes(prefix) == (NOTES if explained else {})
        assert explained or marked[16:] == original[16:]
        # A whole sector of zeros on a sector's boundary always fits into twice its size.
        assert explained or padding_bytes < 2 * 512 or len(prefix_bytes) % 4096 == 0
        mark_ready(fd, str(path), {})
    assert state_of(path) is LifeState.READY


def test_padding_that_holds_someone_elses_bytes_is_not_written_over(tmp_path):
    path = tmp_path / "image"
    original = bytearray(libvirt_prefix(padding_bytes=4096) + STREAM)
    original[-len(STREAM) - 900 : -len(STREAM)] = b"?" * 900
    with opened(path, original) as fd:
        assert mark_spent(fd, str(path), NOTES) is False
    assert path.read_bytes() == b"LibvirtQemudPart" + original[16:]
    assert state_of(path) is LifeState.PARTIAL


def test_annotating_adds_to_the_notes_of_a_ready_image(tmp_path):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd:
        assert annotate(fd, str(path), {"quit_by_save": True}) is True
        prefix = read_prefix(fd, str(path))
    assert life_state(prefix) is LifeState.READY
    assert life_notes(prefix) == {**NOTES, "quit_by_save": True}


def test_annotating_an_image_without_room_says_so(tmp_path):
    path = tmp_path / "image"
    with opened(path, libvirt_prefix(padding_bytes=0) + STREAM) as fd:
        assert annotate(fd, str(path), NOTES) is False


@pytest.mark.parametrize("operation", ["pwrite", "fsync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_what_the_filesystem_refuses_is_a_store_error_with_its_words(
    tmp_path, monkeypatch, operation, error
):
    def refuse(*_arguments):
        raise OSError(error, os.strerror(error))

    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd, monkeypatch.context() as m:
        m.setattr(os, operation, refuse)
        with pytest.raises(StoreError, match=os.strerror(error)) as refused:
            mark_spent(fd, str(path), NOTES)
    assert refused.value.facts["path"] == str(path)
    assert state_of(path) is LifeState.READY


def test_a_write_that_lands_only_in_part_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "image"
    with opened(path, our_image(LifeState.READY, complete=True)) as fd, monkeypatch.context() as m:
        m.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 1)
        with pytest.raises(StoreError, match="only 511 of 512"):
            mark_spent(fd, str(path), NOTES)
