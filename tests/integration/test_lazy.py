# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest runs at once, its RAM mapped from its image; and the image is its RAM, unchanged."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import (
    _lazy,
    _lazy_checks,
    _load,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._restore._failing import (
    RestoreFailed,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._protection import lift
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_restore,
    do_save,
    goes_on,
    image_info,
    look,
    save_away,
)
from ansible_collections.vmfleet.suspend.tests.support.guest import QEMU
from ansible_collections.vmfleet.suspend.tests.support.stricken import Blow, run_stricken

PAGE_BYTES = 4096
MIB = 1 << 20
KINDS: dict[str, dict[str, object]] = {
    "v3": {"image_version": 3},
    "v2-sparse": {"image_format": "sparse"},
}
BACKEND = (
    *("-object", "memory-backend-ram,id=main,size=64M"),
    *("-machine", "memory-backend=main"),
)
BACKEND_IN_JSON = (
    *("-object", '{"qom-type":"memory-backend-memfd","id":"main","size":67108864,"share":false}'),
    *("-machine", "memory-backend=main"),
)
TWO_NODES = (
    *("-object", "memory-backend-ram,id=near,size=32M"),
    *("-object", "memory-backend-ram,id=far,size=32M"),
    *("-numa", "node,memdev=near"),
    *("-numa", "node,memdev=far"),
)
RAM_SHAPES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "plain RAM": ((), {"pc.ram"}),
    "a backend": (BACKEND, {"main"}),
    "a memfd in JSON": (BACKEND_IN_JSON, {"main"}),
    "two NUMA nodes": (TWO_NODES, {"near", "far"}),
}


def pages_of(fd):
    """A checksum of everything behind the prefix, which alone may change."""
    return hashlib.sha256(os.pread(fd, os.fstat(fd).st_size, MIB)).hexdigest()


def words_of(guest):
    """The command line of the QEMU that runs the guest."""
    return Path(f"/proc/{guest.pid}/cmdline").read_text("utf-8").split("\0")


def mapped_ids(guest, path):
    """Ids of the memory backends that the guest's QEMU maps from the image."""
    ids = set()
    for entry in guest.execute("qom-list", {"path": "/objects"}):
        backend = f"/objects/{entry['name']}"
        if entry["type"] == "child<memory-backend-file>":
            where = guest.execute("qom-get", {"path": backend, "property": "mem-path"})
            assert where == str(path)
            ids.add(entry["name"])
    return ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", RAM_SHAPES)
def test_saved_mapped_saved_again_and_mapped_again_the_guest_keeps_its_memory(
    ran, store, shape, kind
):
    extra, blocks = RAM_SHAPES[shape]
    guest = ran(extra=extra)
    for _round in range(2):
        path = save_away(guest, store, **KINDS[kind])
        with path.open("rb") as image:
            before = pages_of(image.fileno())
            result = bring_back(path, load="lazy")
            assert mapped_ids(guest, path) == blocks
            assert result["plan"]["mapped_bytes"] == 64 * MIB
            assert goes_on(guest)
            assert pages_of(image.fileno()) == before
    save_away(guest, store, **KINDS[kind])
    eager = bring_back(store / "guest.save")
    assert (eager["plan"]["load"], mapped_ids(guest, path)) == ("eager", set())
    assert goes_on(guest)


def test_check_mode_foretells_it_and_starts_nothing(ran, store):
    guest = ran()
    path = save_away(guest, store)
    foretold = bring_back(path, load="lazy", check_mode=True)
    assert not guest.alive()
    result = bring_back(path, load="lazy")
    assert foretold["diff"] == result["diff"]
    for key in ("load", "mapped_bytes", "prefetch", "checks"):
        assert foretold["plan"][key] == result["plan"][key]
    assert set(result["plan"]["checks"].values()) == {"yes"}


def test_a_second_run_changes_nothing(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy")
    pid = guest.pid
    for load in ("lazy", "eager"):
        again = bring_back(path, load=load)
        assert (again["changed"], again["guest"]["state"], guest.pid) == (False, "running", pid)


def test_a_given_command_line_is_rewritten_too(ran, store):
    guest = ran()
    path = save_away(guest, store)
    result = do_restore(guest.qmp_socket, path, argv=tuple(guest.argv()), load="lazy")
    assert any("Mapped RAM block pc.ram" in action for action in result["actions"])
    assert goes_on(guest)


def test_a_guest_that_was_left_paused_is_proved_once_more_before_it_runs(ran, store):
    guest = ran()
    path = save_away(guest, store)
    paused = bring_back(path, load="lazy", run_state="paused")
    assert (paused["guest"]["state"], image_info(path)["state"]) == ("paused", "ready")
    assert image_info(path)["write_protected"] is None
    result = bring_back(path, run_state="running")
    assert any(action.startswith("proved") for action in result["actions"])
    assert image_info(path)["write_protected"] == "immutable"
    assert goes_on(guest)


# Never trust, prove.


def overwritten_by_qemu(monkeypatch, offset_bytes, content):
    """Let that place of pc.ram change between the end of the load and the proof."""
    really_load = _load.load

    async def load(session, into, **options):
        report = await really_load(session, into, **options)
        (ram,) = [block for block in into.guest.ram_blocks if block.name == "pc.ram"]
        with open(f"/proc/{into.guest.process.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(ram.host_address + offset_bytes)
            memory.write(content)
        return report

    monkeypatch.setattr(_lazy, "load", load)


# The tiny guest's firmware data is at 0x400, so that its first page is never zero; its last one is
# where no region of it lies.
@pytest.mark.parametrize(
    ("page", "content"),
    [(0, bytes(PAGE_BYTES)), (16383, b"\1" * PAGE_BYTES)],
    ids=["zeroed", "no-longer-zero"],
)
def test_a_page_that_changes_while_qemu_loads_is_found_before_the_guest_runs(
    ran, store, monkeypatch, page, content
):
    guest = ran()
    path = save_away(guest, store)
    overwritten_by_qemu(monkeypatch, page * PAGE_BYTES, content)
    with pytest.raises(RestoreFailed, match=rf"Page {page} of RAM block pc\.ram") as error:
        bring_back(path, load="lazy")
    assert "The image is unharmed and ready" in error.value.message
    assert not guest.alive()
    monkeypatch.undo()
    bring_back(path, load="lazy")
    assert goes_on(guest)


def program(tmp_path, script):
    """A QEMU that does otherwise than it is told."""
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/bash\n{script}\n", "ascii")
    path.chmod(0o755)
    return str(path)


ANOTHER_FILE = f"""
words=()
for word in "$@"; do words+=("${{word//guest.save/copy.save}}"); done
exec {QEMU} "${{words[@]}}"
"""


def test_a_qemu_that_does_not_map_what_it_was_told_to_is_found_before_the_guest_runs(
    ran, store, tmp_path
):
    guest = ran()
    path = save_away(guest, store)
    subprocess.run(["cp", "--sparse=always", path, store / "copy.save"], check=True)
    argv = (program(tmp_path, ANOTHER_FILE), *guest.argv()[1:])
    with pytest.raises(Refused, match=r"Memory backend pc\.ram begins with .*copy\.save"):
        do_restore(guest.qmp_socket, path, argv=argv, load="lazy")
    assert not guest.alive()
    assert image_info(path)["state"] == "ready"


def test_ram_that_is_not_seen_to_be_the_image_is_not_believed_to_be(ran, store, monkeypatch):
    guest = ran()
    path = save_away(guest, store)
    monkeypatch.setattr(_lazy, "mappings_of", lambda _pid, _status: ())
    with pytest.raises(RestoreFailed, match=r"pc\.ram .* is not seen to be a private mapping"):
        bring_back(path, load="lazy")
    assert not guest.alive()
    assert image_info(path)["state"] == "ready"


OLD = f"""
case "$*" in
    *memory-backend-file,help) {QEMU} "$@" | grep -v '^  rom=' ;;
    *) echo "must not be started" >&2; exit 1 ;;
esac
"""


def test_a_qemu_without_the_needed_properties_is_not_even_started(ran, store, tmp_path):
    guest = ran()
    path = save_away(guest, store)
    argv = (program(tmp_path, OLD), *guest.argv()[1:])
    with pytest.raises(Refused, match=r"no property rom .* Set load to eager"):
        do_restore(guest.qmp_socket, path, argv=argv, load="lazy")


def test_old_content_under_a_page_that_is_zero_is_refused_and_an_eager_load_ignores_it(ran, store):
    guest = ran()
    path = save_away(guest, store)
    block = next(one for one in image_info(path)["ram_blocks"] if one["name"] == "pc.ram")
    page = block["page_count"] - 1 if "page_count" in block else 16383
    offset = block["pages_offset_bytes"] + page * PAGE_BYTES
    with path.open("r+b") as image:
        os.pwrite(image.fileno(), b"old", offset + 17)
    with pytest.raises(Refused, match=rf"Page {page} of RAM block pc\.ram .* offset {offset}"):
        bring_back(path, load="lazy")
    assert not guest.alive()
    bring_back(path)
    assert goes_on(guest)


# The image is the guest's RAM.


def test_nobody_writes_truncates_or_removes_the_image_of_a_guest_that_runs_from_it(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy")
    info = image_info(path)
    assert (info["write_protected"], info["mapped_by_pid"]) == ("immutable", guest.pid)
    for attack in (
        lambda: path.open("r+b"),
        lambda: path.open("wb"),
        lambda: os.truncate(path, 0),
        path.unlink,
        lambda: path.rename(store / "other"),
        lambda: shutil.copyfile("/etc/passwd", path),
    ):
        with pytest.raises(PermissionError):
            attack()
    assert goes_on(guest)


def test_a_new_save_to_the_same_path_leaves_the_guest_its_own_file(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy", prefetch="none")
    old = path.stat().st_ino
    with path.open("rb") as image:
        before = pages_of(image.fileno())
        do_save(guest.qmp_socket, path, guest_state="running")
        assert path.stat().st_ino != old
        assert image_info(path)["write_protected"] is None
        assert goes_on(guest)  # from a file that has no name any more
        assert pages_of(image.fileno()) == before


def test_an_image_that_is_removed_leaves_the_guest_its_file_without_a_name(ran, store):
    guest = ran()
    path = save_away(guest, store)
    result = bring_back(path, load="lazy", remove_image=True)
    assert (result["image"]["state"], path.exists()) == ("removed", False)
    assert f"{path} (deleted)" in Path(f"/proc/{guest.pid}/maps").read_text("utf-8")
    assert goes_on(guest)


def test_once_its_guest_is_gone_the_image_can_be_written_again_by_who_is_asked_to(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy")
    assert goes_on(guest)
    guest.kill()
    assert image_info(path)["mapped_by_pid"] is None
    guest.disk_path.touch()
    with pytest.raises(Refused, match="is spent"):
        bring_back(path, load="lazy")
    bring_back(path, load="lazy", allow=frozenset({"spent", "changed_disks"}))
    assert goes_on(guest)


def test_where_nothing_can_be_made_immutable_the_result_says_what_that_risks(
    ran, store, monkeypatch
):
    def refuse(*_arguments):
        raise OSError(95, "Operation not supported")

    guest = ran()
    path = save_away(guest, store)
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    result = bring_back(path, load="lazy")
    assert any("read-only (mode)" in action for action in result["actions"])
    assert path.stat().st_mode & 0o222 == 0
    assert bring_back(path)["changed"] is False


def test_a_store_that_may_go_away_is_refused_unless_that_is_allowed(ran, store, monkeypatch):
    guest = ran()
    path = save_away(guest, store)
    why = "it lies on filer:/images, a filesystem of type nfs4 that others serve"
    monkeypatch.setattr(_lazy_checks, "unsteady", lambda _fd: why)
    with pytest.raises(Refused, match=r"filer:/images.* allow unsteady_store"):
        bring_back(path, load="lazy")
    result = bring_back(path, load="lazy", allow=frozenset({"unsteady_store"}))
    assert result["plan"]["checks"]["store_steady"] == "allowed"
    assert goes_on(guest)


# What cannot be mapped.


@pytest.mark.parametrize(
    ("kind", "words"),
    [({"image_format": "raw"}, "sequential"), ({"image_format": "gzip"}, "compressed with gzip")],
)
def test_an_image_whose_pages_lie_nowhere_in_particular_is_refused(ran, store, kind, words):
    guest = ran()
    path = save_away(guest, store, image_version=2, **kind)
    with pytest.raises(Refused, match=rf"is {words}.*Set load to eager"):
        bring_back(path, load="lazy")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            (
                *("-object", "memory-backend-memfd,id=main,size=64M"),
                *("-machine", "memory-backend=main"),
            ),
            "memory backend main: it is shared",
        ),
        (
            (
                *("-object", "memory-backend-ram,id=main,size=64M,prealloc=on"),
                *("-machine", "memory-backend=main"),
            ),
            "memory backend main: it is preallocated",
        ),
        (("-overcommit", "mem-lock=on"), "-overcommit mem-lock=on: it pins"),
    ],
)
def test_ram_that_is_not_plain_private_memory_is_refused_with_the_reason(ran, store, extra, words):
    guest = ran(extra=extra)
    path = save_away(guest, store)
    with pytest.raises(Refused, match=f"{words}.*Set load to eager"):
        bring_back(path, load="lazy")
    bring_back(path)
    assert goes_on(guest)


def test_a_qemu_that_waits_has_ram_of_its_own(ran, store):
    guest = ran()
    path = save_away(guest, store)
    guest.start(incoming=True)
    with pytest.raises(Refused, match=r"already waits .* end that one, or set load to eager"):
        bring_back(path, load="lazy")
    bring_back(path)
    assert goes_on(guest)


def test_a_qemu_that_was_to_map_the_image_is_not_loaded_eagerly(ran, store):
    guest = ran()
    path = save_away(guest, store)
    options = {"path": str(path), "qmp_socket": guest.qmp_socket, "load": "lazy"}
    killed = Blow("_restore._starter.wait_for_monitor")
    assert run_stricken("restore", {**options, "argv": guest.argv()}, killed).killed
    with pytest.raises(Refused, match=r"set load to lazy; else end it") as refused:
        do_restore(guest.qmp_socket, path)
    assert "remove the file" not in refused.value.message
    do_restore(guest.qmp_socket, path, argv=tuple(guest.argv()), load="lazy")
    assert goes_on(guest)


def test_past_the_page_cache_nothing_can_be_mapped(ran, store):
    path = save_away(ran(), store)
    with pytest.raises(Refused, match="bypass_cache does not go with load lazy"):
        bring_back(path, load="lazy", bypass_cache=True)


def test_a_qemu_of_another_user_must_be_let_read_the_image(ran_by_nobody, store):
    guest = ran_by_nobody
    path = save_away(guest, store)
    with pytest.raises(Refused, match=rf"setfacl -m u:65534:r {path}"):
        bring_back(path, load="lazy")
    path.chmod(0o604)
    bring_back(path, load="lazy")
    assert "Uid:\t65534\t" in Path(f"/proc/{guest.pid}/status").read_text("ascii")
    assert goes_on(guest)


def test_emptying_the_files_behind_the_ram_spares_the_image(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy", reset_shared_memory=True)
    assert goes_on(guest)


# Reading ahead.


def test_a_full_prefetch_is_waited_for_and_reported(ran, store):
    guest = ran()
    path = save_away(guest, store)
    report = bring_back(path, load="lazy", prefetch="full")["prefetch"]
    assert (report["waited_for"], report["ended"]) == (True, "complete")
    assert report["read_bytes"] == report["total_bytes"] > 8 * MIB
    assert report["total_bytes"] < 64 * MIB  # zero pages are not read
    assert goes_on(guest)


def readers_of(path):
    """Processes other than the guest's QEMU that have the file open."""
    status, found = path.stat(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = [os.stat(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu" not in command and any(os.path.samestat(one, status) for one in files):
            found.append(int(pid))
    return found


def test_a_background_prefetch_holds_no_lock_and_ends_by_itself(ran, store):
    guest = ran()
    path = save_away(guest, store)
    report = bring_back(path, load="lazy")["prefetch"]
    assert (report["waited_for"], report["read_bytes"]) == (False, None)
    assert bring_back(path)["changed"] is False
    end = time.monotonic() + 20
    while readers_of(path):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert goes_on(guest)


def test_without_a_prefetch_the_guest_reads_only_what_it_touches(ran, store):
    guest = ran(memory_mib=128, pattern_mib=64)
    path = save_away(guest, store)
    with path.open("rb") as image:
        os.fsync(image.fileno())
        os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    result = bring_back(path, load="lazy", prefetch="none", run_state="paused")
    assert "prefetch" not in result
    resident = Path(f"/proc/{guest.pid}/status").read_text("ascii").split("RssFile:")[1].split()[0]
    assert int(resident) < 48 << 10  # kB, of which QEMU's own program is half
    assert look(guest.qmp_socket).run_state == "paused"


def test_lifting_the_protection_by_hand_is_enough_to_remove_an_image(ran, store):
    guest = ran()
    path = save_away(guest, store)
    bring_back(path, load="lazy")
    with path.open("rb") as image:
        lift(image.fileno(), str(path))
    path.unlink()
    assert goes_on(guest)
