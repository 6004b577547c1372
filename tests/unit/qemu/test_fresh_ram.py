# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the memory of a waiting QEMU is provably empty."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._fresh_ram import (
    empty_backends,
    first_used_offset,
    memory_files,
    stale_backends,
    used_reason,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._process import identify
from ansible_collections.vmfleet.suspend.tests.support.model_guest import with_monitor
from ansible_collections.vmfleet.suspend.tests.support.monitor import ScriptedMonitor

MIB = 1 << 20
FILE = "child<memory-backend-file>"


@pytest.fixture
def ram(tmp_path):
    return tmp_path / "ram"


def write(path, size_bytes, data=None):
    """A file of ``size_bytes`` with ``data`` (offset -> bytes); the rest are holes."""
    with path.open("wb") as file:
        for offset, content in (data or {}).items():
            file.seek(offset)
            file.write(content)
        file.truncate(size_bytes)


def first_used(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return first_used_offset(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("size_bytes", "data"),
    [
        (0, {}),
        (1 << 40, {}),
        (4 * MIB, {0: bytes(4 * MIB)}),
        (4 * MIB, {0: bytes(4096), 3 * MIB: bytes(4096)}),
        (5, {0: bytes(5)}),
    ],
    ids=["empty", "a hole of a TiB", "zeros", "zeros and holes", "not a whole page"],
)
def test_holes_and_zeros_are_empty(ram, size_bytes, data):
    write(ram, size_bytes, data)
    assert first_used(ram) is None
    assert used_reason(str(ram)) is None


@pytest.mark.parametrize(
    ("offset", "zeros_first", "found"),
    [
        (0, 0, 0),
        (MIB - 1, MIB - 1, 0),
        (MIB, MIB, MIB),
        (3 * MIB + 17, 3 * MIB + 17, 3 * MIB),
        (1 << 40, 0, 1 << 40),
    ],
)
def test_one_byte_is_found_wherever_it_is(ram, offset, zeros_first, found):
    write(ram, (1 << 40) + MIB, {0: bytes(zeros_first), offset: b"\x01"})
    assert first_used(ram) == found
    assert used_reason(str(ram)) == f"it holds data from offset {found} on"


def test_a_directory_means_a_file_of_qemus_own_in_it(tmp_path):
    assert used_reason(str(tmp_path)) is None


def test_a_device_keeps_its_content():
    assert used_reason("/dev/null") == "it is a device, whose content outlives a guest"


@pytest.mark.parametrize("path", ["/nonexistent/ram", "/proc/self/mem/x"])
def test_what_cannot_be_read_is_not_provably_empty(path):
    assert "cannot be read to see whether it is empty" in (used_reason(path) or "")


def test_a_file_that_cannot_be_searched_is_not_provably_empty(ram, monkeypatch):
    def lseek(fd, position, how):
        raise OSError(5, "Input/output error")

    write(ram, MIB)
    monkeypatch.setattr(os, "lseek", lseek)
    assert used_reason(str(ram)) == "it cannot be searched for data (Input/output error)"


def stale(tmp_path, objects, process=None, mapped=None, read_only=False):
    """What is said of ``objects``, name -> (QOM type, mem-path); ``pm`` is no RAM."""
    ram_blocks = {name for name in objects if name != "pm"}
    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        listed = [{"name": name, "type": kind} for name, (kind, _path) in objects.items()]
        monitor.expect("qom-list", {"path": "/objects"}).returns(listed)
        for name, (kind, path) in objects.items():
            if kind == FILE and name in ram_blocks:
                asked = {"path": f"/objects/{name}", "property": "mem-path"}
                monitor.expect("qom-get", asked).returns(str(path))
                asked = {"path": f"/objects/{name}", "property": "readonly"}
                monitor.expect("qom-get", asked).returns(read_only)
        return with_monitor(
            monitor.path, lambda session: stale_backends(session, process, ram_blocks, mapped)
        )


def test_each_file_backend_with_old_content_is_named(tmp_path, ram):
    write(ram, MIB, {0: b"old"})
    write(tmp_path / "empty", MIB)
    objects = {"pc.ram": (FILE, ram), "dimm0": (FILE, tmp_path / "empty")}
    (reason,) = stale(tmp_path, objects)
    assert reason.startswith(
        f"Memory backend pc.ram uses {ram}, and it holds data from offset 0 on. "
    )
    assert "set reset_shared_memory" in reason


def test_what_ram_begins_with_is_not_to_be_emptied_or_removed(tmp_path, ram):
    write(ram, MIB, {0: b"pages"})
    (reason,) = stale(tmp_path, {"pc.ram": (FILE, ram)}, read_only=True)
    assert "set load to lazy" in reason
    assert "remove" not in reason
    assert "reset_shared_memory" not in reason


def test_an_empty_file_that_is_only_read_is_as_good_as_none(tmp_path, ram):
    write(ram, MIB)
    assert stale(tmp_path, {"pc.ram": (FILE, ram)}, read_only=True) == ()


@pytest.mark.parametrize("read_only", [True, False])
def test_the_image_is_known_by_its_file_and_not_by_its_name(tmp_path, ram, read_only):
    write(ram, MIB, {0: b"pages"})
    (tmp_path / "link").hardlink_to(ram)
    (tmp_path / "copy").write_bytes(ram.read_bytes())
    objects = {"pc.ram": (FILE, tmp_path / "link"), "dimm0": (FILE, tmp_path / "copy")}
    (reason,) = stale(tmp_path, objects, mapped=ram.stat(), read_only=read_only)
    assert reason.startswith("Memory backend dimm0")


def test_a_backend_whose_file_is_gone_is_not_the_image(tmp_path, ram):
    write(ram, MIB, {0: b"pages"})
    objects = {"pc.ram": (FILE, tmp_path / "gone")}
    (reason,) = stale(tmp_path, objects, mapped=ram.stat())
    assert "cannot be read to see whether it is empty" in reason


def test_the_image_that_is_to_be_the_ram_needs_not_be_empty(tmp_path, ram):
    write(ram, MIB, {0: b"old"})
    write(tmp_path / "other", MIB, {0: b"old"})
    objects = {"pc.ram": (FILE, ram), "dimm0": (FILE, tmp_path / "other")}
    (reason,) = stale(tmp_path, objects, mapped=ram.stat())
    assert reason.startswith("Memory backend dimm0")


def test_the_disk_of_a_pmem_device_is_no_ram_and_may_hold_what_it_likes(tmp_path, ram):
    write(ram, MIB, {0: b"data"})
    assert stale(tmp_path, {"pm": (FILE, ram)}) == ()


def test_anonymous_memory_starts_empty(tmp_path):
    objects = {"pc.ram": ("child<memory-backend-ram>", None), "rng0": ("child<rng-random>", None)}
    assert stale(tmp_path, objects) == ()


@pytest.fixture
def in_there(tmp_path):
    """A process in QEMU's place whose working directory is not this one's."""
    with subprocess.Popen(["sleep", "600"], cwd=tmp_path) as process:
        yield identify(process.pid)
        process.kill()


def test_a_relative_path_is_qemus_own(tmp_path, ram, in_there):
    write(ram, MIB, {0: b"old"})
    (reason,) = stale(tmp_path, {"pc.ram": (FILE, "ram")}, in_there)
    assert "uses ram, and it holds data" in reason


def test_a_relative_path_of_the_image_is_qemus_own_too(tmp_path, ram, in_there):
    write(ram, MIB, {0: b"pages"})
    assert stale(tmp_path, {"pc.ram": (FILE, "ram")}, in_there, mapped=ram.stat()) == ()


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["-mem-path", "/dev/shm/ram"], ("/dev/shm/ram",)),
        (["-object", "memory-backend-file,id=m0,size=64M,mem-path=ram,share=on"], ("/vm/ram",)),
        (["-object", '{"qom-type":"memory-backend-file","id":"m0","mem-path":"/r"}'], ("/r",)),
        (["-object", "qom-type=memory-backend-file,id=m0,mem-path=/r"], ("/r",)),
        (["-object", "memory-backend-ram,id=m0,size=64M"], ()),
        (["-object", "memory-backend-memfd,id=m0,size=64M,share=on"], ()),
    ],
)
def test_files_behind_the_ram_are_known_from_the_command_line(words, paths):
    assert memory_files(["qemu", *words], "/vm", {"m0"}) == paths


def test_files_of_backends_that_are_no_ram_are_not_among_them():
    words = ["-object", "memory-backend-file,id=pm,size=64M,mem-path=/srv/pmem,share=on"]
    assert memory_files(["qemu", *words], "/vm", {"pc.ram"}) == ()
    assert memory_files(["qemu", *words], "/vm", {"/objects/pm"}) == ("/srv/pmem",)


def emptied(tmp_path, path, process=None, mapped=None, read_only=False):
    """What `empty_backends` returns for one backend on ``path``."""
    with ScriptedMonitor(tmp_path / "qmp") as monitor:
        monitor.expect("qom-list", {"path": "/objects"}).returns([{"name": "m0", "type": FILE}])
        monitor.expect("qom-get", {"path": "/objects/m0", "property": "mem-path"}).returns(
            str(path)
        )
        asked = monitor.expect("qom-get", {"path": "/objects/m0", "property": "readonly"})
        if read_only is None:
            asked.fails("GenericError", "Property 'memory-backend-file.readonly' not found")
        else:
            asked.returns(read_only)
        return with_monitor(
            monitor.path, lambda session: empty_backends(session, process, {"m0"}, mapped)
        )


def test_a_file_with_old_content_is_emptied_and_keeps_its_length(tmp_path, ram):
    write(ram, 2 * MIB, {MIB: b"old"})
    assert emptied(tmp_path, ram) == (str(ram),)
    assert ram.read_bytes() == bytes(2 * MIB)
    assert used_reason(str(ram)) is None


def test_a_qemu_that_knows_no_read_only_backends_has_none(tmp_path, ram):
    write(ram, MIB, {0: b"old"})
    assert emptied(tmp_path, ram, read_only=None) == (str(ram),)


def test_what_ram_only_begins_with_is_never_emptied(tmp_path, ram):
    write(ram, MIB, {0: b"template"})
    with pytest.raises(Refused, match=f"begins with the content of {ram}"):
        emptied(tmp_path, ram, read_only=True)
    assert ram.read_bytes().startswith(b"template")


def test_what_is_empty_already_is_left_alone_even_if_ram_only_begins_with_it(tmp_path, ram):
    write(ram, MIB)
    assert emptied(tmp_path, ram, read_only=True) == ()


def test_a_copy_of_the_image_is_not_spared(tmp_path, ram):
    write(ram, MIB, {0: b"pages"})
    (tmp_path / "copy").write_bytes(ram.read_bytes())
    assert emptied(tmp_path, tmp_path / "copy", mapped=ram.stat()) == (str(tmp_path / "copy"),)
    assert ram.read_bytes().startswith(b"pages")


def test_the_image_that_is_to_be_the_ram_is_never_emptied(tmp_path, ram):
    write(ram, MIB, {0: b"pages"})
    assert emptied(tmp_path, ram, read_only=True, mapped=ram.stat()) == ()
    assert ram.read_bytes().startswith(b"pages")


def test_a_file_that_another_process_has_open_is_left_alone(tmp_path, ram):
    write(ram, MIB, {0: b"old"})
    with ram.open("rb") as held, subprocess.Popen(["sleep", "60"], stdin=held) as other:
        with pytest.raises(Refused, match=f"process {other.pid} has it open"):
            emptied(tmp_path, ram)
        other.kill()
    assert ram.read_bytes().startswith(b"old")


def test_a_device_is_not_emptied(tmp_path):
    with pytest.raises(Refused, match="not a file"):
        emptied(tmp_path, "/dev/zero")
