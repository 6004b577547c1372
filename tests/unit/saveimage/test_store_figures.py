# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store is measured, and the figures are kept for it."""

from __future__ import annotations

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils import _store_speed
from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import StoreError
from ansible_collections.vmfleet.suspend.plugins.module_utils._measured import Figure, Figures
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import (
    _probe,
    _store_figures,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._store_figures import (
    KEPT_SECONDS,
    identity,
    keep,
    kept,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._store_speed import (
    WORTH_BYTES,
    for_restoring,
    for_saving,
)

GIB = 1 << 30


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Where figures are kept."""
    monkeypatch.setattr(_store_figures, "DIRECTORY", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def measurements(monkeypatch):
    """Counts them, and makes them up."""
    made = []

    def measure(directory, cpu_count):
        made.append(directory)
        return some_figures()

    monkeypatch.setattr(_store_speed, "measure", measure)
    return made


def some_figures(age_seconds=0.0):
    write = (Figure(True, 1, 2e9), Figure(False, 1, 1e9))
    read = (Figure(True, 1, 1e9), Figure(False, 1, 2e9))
    return Figures(time.time() - age_seconds, write, read)


def a_store(tmp_path):
    return identity(str(tmp_path), "10.0.2")


@pytest.mark.parametrize("cpu_count", [2, 3])
def test_a_real_store_is_measured_and_nothing_is_left_of_it(tmp_path, cpu_count):
    store = tmp_path / "store"
    store.mkdir()
    figures = _probe.measure(str(store), cpu_count)
    assert list(store.iterdir()) == []
    for found in (figures.write, figures.read):
        assert {one.channels for one in found if not one.direct} == {1, cpu_count}
        assert all(one.bytes_per_second > 0 for one in found)


def test_a_slow_store_is_not_measured_for_long(tmp_path, monkeypatch):
    slow, now, dirty, write = 10 << 20, [0.0], [0], os.pwrite

    def later(seconds=1e-6):
        now[0] += seconds
        return now[0]

    def into_the_cache(fd, data, offset):
        dirty[0] += len(data)
        return write(fd, data, offset)

    def flush(_fd):
        later(dirty[0] / slow)
        dirty[0] = 0

    monkeypatch.setattr(_probe, "time", SimpleNamespace(monotonic=later, time=time.time))
    monkeypatch.setattr(os, "pwrite", into_the_cache)
    monkeypatch.setattr(os, "fsync", flush)
    figures = _probe.measure(str(tmp_path), cpu_count=2)
    assert all(0.7 < one.bytes_per_second / slow < 1.1 for one in figures.write)
    assert now[0] < 2.5


def test_a_filesystem_without_nameless_files_is_measured_too(tmp_path, monkeypatch):
    real = os.open

    def refusing(path, flags, *arguments, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    assert _probe.measure(str(tmp_path), cpu_count=1).write
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_without_o_direct_has_buffered_figures_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(_probe, "_direct", lambda _fd: None)
    assert not any(one.direct for one in _probe.measure(str(tmp_path), cpu_count=1).write)


def test_a_full_store_is_named(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=rf"Measuring {tmp_path} failed: No space left"):
        _probe.measure(str(tmp_path), cpu_count=1)


def test_what_is_kept_is_found_again_by_the_same_store_alone(tmp_path, directory):
    store, figures = a_store(tmp_path), some_figures()
    keep(store, figures)
    assert kept(store) == figures
    assert directory.stat().st_mode & 0o777 == 0o700
    for name, other in (("qemu", "9.2.0"), ("kernel", "6.1"), ("mount", ["8:1"])):
        assert kept({**store, name: other}) is None


def test_figures_age(tmp_path):
    store = a_store(tmp_path)
    keep(store, some_figures(KEPT_SECONDS - 60))
    assert kept(store) is not None
    keep(store, some_figures(KEPT_SECONDS + 60))
    assert kept(store) is None
    keep(store, some_figures(-3600))  # of a clock that was wrong
    assert kept(store) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 2}'])
def test_what_is_damaged_or_of_another_version_counts_for_nothing(tmp_path, directory, content):
    store = a_store(tmp_path)
    keep(store, some_figures())
    (path,) = directory.iterdir()
    path.write_text(content)
    assert kept(store) is None


def test_what_others_could_have_written_counts_for_nothing(tmp_path, directory):
    store = a_store(tmp_path)
    keep(store, some_figures())
    (path,) = directory.iterdir()
    path.chmod(0o666)
    assert kept(store) is None


def test_where_nothing_can_be_kept_nothing_fails(tmp_path, directory):
    directory.write_text("in the way")
    keep(a_store(tmp_path), some_figures())


def test_a_store_is_measured_once_and_for_large_images_alone(tmp_path, measurements, directory):
    path = str(tmp_path / "web01.save")
    assert for_saving(path, "10.0.2", WORTH_BYTES - 1, may_measure=True) is None
    assert for_saving(path, "10.0.2", GIB, may_measure=False) is None
    assert (measurements, directory.exists()) == ([], False)
    first = for_saving(path, "10.0.2", GIB, may_measure=True)
    assert first is not None and first.bypass_cache
    assert measurements == [str(tmp_path)]
    assert for_saving(path, "10.0.2", GIB, may_measure=False) == first
    reading = for_restoring(path, "10.0.2", GIB, may_measure=True)
    assert reading is not None and not reading.bypass_cache
    assert len(measurements) == 1
    # What is kept holds for images of any size.
    assert for_saving(path, "10.0.2", 1, may_measure=True) == first
    assert for_restoring(path, "10.0.2", 1, may_measure=False) == reading
    (kept_file,) = directory.iterdir()
    assert json.loads(kept_file.read_text())["store"]["qemu"] == "10.0.2"


def test_guests_that_come_back_together_have_the_store_measured_once(tmp_path, monkeypatch):
    made = []

    def measure(directory, cpu_count):
        made.append(directory)
        time.sleep(0.1)
        return some_figures()

    monkeypatch.setattr(_store_speed, "measure", measure)
    with ThreadPoolExecutor(4) as together:
        found = [
            together.submit(for_restoring, str(tmp_path / "x"), "10.0.2", GIB, may_measure=True)
            for _guest in range(4)
        ]
    assert len({one.result() for one in found}) == len(made) == 1


def test_a_store_that_is_nearly_full_is_not_measured(tmp_path, measurements, monkeypatch):
    monkeypatch.setattr(_store_speed, "_free_bytes", lambda _directory: 10 << 20)
    assert for_saving(str(tmp_path / "x"), "10.0.2", GIB, may_measure=True) is None
    assert measurements == []


def test_a_store_that_is_not_there_is_for_the_save_to_tell(tmp_path):
    assert for_saving(str(tmp_path / "none" / "x"), "10.0.2", GIB, may_measure=True) is None
