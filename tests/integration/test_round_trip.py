# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real guest goes into an image and comes back, and says itself that nothing changed.

The matrix: image kind x channels x bypass_cache x guest_state. `make test` runs the cells that
differ in kind; `make test-full` runs all of them.
"""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import (
    do_restore,
    do_save,
    image_info,
    leftovers,
    look,
)
from ansible_collections.vmfleet.suspend.tests.support.kinds import KINDS, needs_program

MAPPED_KINDS = ("v3", "v2-sparse")
SEQUENTIAL_KINDS = tuple(kind for kind in KINDS if kind not in MAPPED_KINDS)
STATES = ("stopped", "paused", "running")

# kind, channels, bypass_cache, guest_state
REPRESENTATIVE = {
    ("v3", 2, True, "stopped"),
    ("v3", 1, False, "stopped"),
    ("v2-sparse", 4, True, "stopped"),
    ("v2-sparse", 1, False, "paused"),
    ("v2-raw", None, False, "stopped"),
    ("v2-raw", None, True, "stopped"),
    ("v2-gzip", None, False, "stopped"),
    ("v2-lzop", None, True, "stopped"),
    ("v2-zstd", None, True, "paused"),
    ("v3", 2, False, "running"),
}


def cells():
    found = []
    mapped = itertools.product(MAPPED_KINDS, (1, 2, 4), (False, True), STATES)
    sequential = itertools.product(SEQUENTIAL_KINDS, (None,), (False, True), STATES)
    for cell in itertools.chain(mapped, sequential):
        marks = () if cell in REPRESENTATIVE else (pytest.mark.full,)
        found.append(pytest.param(*cell, marks=marks, id="-".join(str(part) for part in cell)))
    return found


@pytest.mark.parametrize(("kind", "channels", "bypass_cache", "guest_state"), cells())
def test_a_saved_guest_comes_back_with_the_same_memory(
    tiny_guest, store, kind, channels, bypass_cache, guest_state
):
    needs_program(KINDS[kind].get("image_format", "raw"))
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    before = look(guest.qmp_socket)
    path = store / "guest.save"

    saved = do_save(
        guest.qmp_socket,
        path,
        **KINDS[kind],
        parallel_channels=channels,
        bypass_cache=bypass_cache,
        guest_state=guest_state,
        verify="content",
    )

    assert saved["changed"] is True
    assert leftovers(store) == []
    layout = "mapped-ram" if kind in MAPPED_KINDS else "sequential"
    assert saved["image"]["layout"] == layout
    assert saved["image"]["verified"] == ("content" if kind in MAPPED_KINDS else "structure")
    info = image_info(path)
    assert info["problems"] == []
    assert info["layout"] == layout
    assert info["state"] == ("spent" if guest_state == "running" else "ready")
    assert saved["image"]["ram_bytes"] == sum(block.used_bytes for block in before.ram_blocks)

    if guest_state == "running":
        guest.wait_passes(2)
    else:
        if guest_state == "paused":
            assert guest.status() == "postmigrate"
            guest.kill()
        assert not guest.alive()
        guest.start(incoming=True)
        restored = do_restore(
            guest.qmp_socket, path, parallel_channels=channels, bypass_cache=bypass_cache
        )
        assert restored["guest"]["state"] == "running"
        assert image_info(path)["state"] == "spent"
        guest.wait_passes(2)
    assert guest.mismatches == []
    after = look(guest.qmp_socket)
    assert (after.offer, after.run_state) == (before.offer, "running")


def test_a_guest_that_was_paused_stays_paused_when_it_comes_back(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    guest.execute("stop")
    do_save(guest.qmp_socket, store / "guest.save")
    guest.start(incoming=True)
    restored = do_restore(guest.qmp_socket, store / "guest.save")
    assert restored["guest"]["state"] == "paused"
    assert image_info(store / "guest.save")["state"] == "ready"

    again = do_restore(guest.qmp_socket, store / "guest.save", run_state="running")
    assert (again["changed"], again["guest"]["state"]) == (True, "running")
    assert image_info(store / "guest.save")["state"] == "spent"
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_guest_that_never_ran_is_saved_and_first_runs_after_the_restore(tiny_guest, store):
    guest = tiny_guest(extra=("-S",))
    guest.start()
    assert guest.status() == "prelaunch"
    do_save(guest.qmp_socket, store / "guest.save")
    guest.extra = ()
    guest.start(incoming=True)
    restored = do_restore(guest.qmp_socket, store / "guest.save")
    assert restored["guest"]["state"] == guest.status()
    assert do_restore(guest.qmp_socket, store / "guest.save")["changed"] is False
    do_restore(guest.qmp_socket, store / "guest.save", run_state="running")
    guest.wait_passes(1)
    assert guest.mismatches == []


def test_restore_starts_qemu_from_argv_and_leaves_it_running(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    do_save(guest.qmp_socket, store / "guest.save", parallel_channels=2)
    restored = do_restore(guest.qmp_socket, store / "guest.save", argv=tuple(guest.argv()))
    assert guest.pid == restored["guest"]["pid"]
    assert restored["guest"]["state"] == "running"
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_one_channel_reads_what_four_wrote_and_the_other_way_round(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    for number, (out, back) in enumerate([(4, 1), (1, 4)]):
        path = store / f"{number}.save"
        do_save(guest.qmp_socket, path, parallel_channels=out, bypass_cache=True)
        guest.start(incoming=True)
        do_restore(guest.qmp_socket, path, parallel_channels=back, bypass_cache=False)
        guest.wait_passes(2)
    assert guest.mismatches == []


def test_saving_twice_changes_nothing_the_second_time(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    first = do_save(guest.qmp_socket, store / "guest.save")
    content = (store / "guest.save").read_bytes()
    second = do_save(guest.qmp_socket, store / "guest.save")
    assert (first["changed"], second["changed"]) == (True, False)
    assert (store / "guest.save").read_bytes() == content
    assert second["diff"]["before"] == second["diff"]["after"]


def test_restoring_twice_changes_nothing_the_second_time(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    do_save(guest.qmp_socket, store / "guest.save")
    guest.start(incoming=True)
    first = do_restore(guest.qmp_socket, store / "guest.save")
    second = do_restore(guest.qmp_socket, store / "guest.save")
    assert (first["changed"], second["changed"]) == (True, False)
    assert second["guest"] == first["guest"]


def test_check_mode_returns_the_plan_and_the_diff_of_the_real_run_and_touches_nothing(
    tiny_guest, store
):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    before = look(guest.qmp_socket)
    planned = do_save(guest.qmp_socket, store / "guest.save", bypass_cache=True, check_mode=True)
    assert list(store.iterdir()) == []
    assert look(guest.qmp_socket) == before
    done = do_save(guest.qmp_socket, store / "guest.save", bypass_cache=True)
    assert planned["diff"] == done["diff"]
    assert planned["plan"]["bypass_cache_proved"] == "unproven"
    assert done["plan"]["bypass_cache_proved"] is True

    unknown = do_restore(guest.qmp_socket, store / "guest.save", check_mode=True)
    assert unknown["plan"]["same_guest"] == "unknown"
    guest.start(incoming=True)
    planned = do_restore(guest.qmp_socket, store / "guest.save", check_mode=True)
    assert guest.status() == "inmigrate"
    assert image_info(store / "guest.save")["state"] == "ready"
    done = do_restore(guest.qmp_socket, store / "guest.save")
    assert planned["diff"] == done["diff"]


def test_qemu_conf_decides_the_format_of_a_version_that_was_asked_for(tiny_guest, store, tmp_path):
    guest = tiny_guest()
    guest.start()
    conf = tmp_path / "qemu.conf"
    conf.write_text('save_image_format = "sparse"\n')
    planned = do_save(
        guest.qmp_socket, store / "a.save", image_version=2, qemu_conf=str(conf), check_mode=True
    )
    assert planned["plan"]["image_format"] == "sparse"


def test_the_image_is_removed_only_after_the_guest_runs_again(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    do_save(guest.qmp_socket, store / "guest.save")
    guest.start(incoming=True)
    restored = do_restore(guest.qmp_socket, store / "guest.save", remove_image=True)
    assert restored["image"]["state"] == "removed"
    assert list(store.iterdir()) == []
    guest.wait_passes(2)


def test_max_bandwidth_bounds_the_transfer(tiny_guest, store):
    guest = tiny_guest(pattern_mib=16)
    guest.start()
    guest.wait_passes(1)
    saved = do_save(guest.qmp_socket, store / "guest.save", max_bandwidth=16 << 20)
    assert saved["migration"]["total_seconds"] > 0.5
