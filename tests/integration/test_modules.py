# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as Ansible runs them: arguments, results, check mode, diff, missing requirements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
import venv
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.bare_module import run_alone
from ansible_collections.vmfleet.suspend.tests.support.drive import image_info

QUIET = {"vmfleet_progress": False}


def run_module(
    name: str, *flags: str, python: object = sys.executable, **options: t.Any
) -> dict[str, t.Any]:
    """One ad-hoc run against localhost; the module's result."""
    completed = ansible(name, *flags, python=python, **options)
    start = completed.stdout.index(" => {") + len(" => ")
    return t.cast("dict[str, t.Any]", json.loads(completed.stdout[start:]))


def ansible(
    name: str, *flags: str, python: object = sys.executable, **options: t.Any
) -> subprocess.CompletedProcess[str]:
    """One ad-hoc run against localhost; what it printed."""
    return subprocess.run(
        [
            *("ansible", "localhost", "-m", f"vmfleet.suspend.{name}"),
            *("-a", json.dumps(options, default=str)),
            # Progress has tests of its own, and takes a second each time.
            *("-e", json.dumps({"ansible_python_interpreter": str(python), **QUIET})),
            *flags,
        ],
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.full
def test_a_domain_goes_through_both_modules(domain, store):
    place = {"domain": domain.name, "uri": domain.host.uri, "path": store / "domain.save"}
    planned = run_module("qemu_save", "--check", **place)
    assert (planned["changed"], os.listdir(store)) == (True, [])
    assert run_module("qemu_save", **place)["image"]["image_format"] == "sparse"
    assert run_module("qemu_save", **place)["changed"] is False
    assert run_module("qemu_restore", **place)["guest"]["state"] == "running"
    assert run_module("qemu_restore", **place)["changed"] is False
    domain.wait_passes(2)
    assert domain.mismatches == []


@pytest.mark.full
def test_a_managed_save_goes_through_both_modules(domain, tmp_path):
    place = {"domain": domain.name, "uri": domain.host.uri, "managed": True}
    python = tmp_path / "python"  # in whose /var/lib/libvirt the file is
    python.write_text(f'#!/bin/sh\nexec {domain.host.enter} {sys.executable} "$@"\n')
    python.chmod(0o755)
    saved = run_module("qemu_save", python=python, **place)
    assert saved["image"]["path"] == f"/var/lib/libvirt/qemu/save/{domain.name}.save"
    assert run_module("qemu_restore", python=python, **place)["guest"]["state"] == "running"
    domain.wait_passes(2)
    assert domain.mismatches == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("qemu_save", {"domain": "a", "managed": True}, "managed does not go with path"),
        ("qemu_restore", {"domain": "a", "managed": True}, "managed does not go with path"),
        ("qemu_save", {"qmp_socket": "/run/a.qmp", "managed": True}, "missing: domain"),
        ("qemu_save", {"domain": "a", "path": None}, "Option path is needed"),
        ("qemu_restore", {"path": None}, "Option path is needed"),
        ("qemu_save", {}, "one of the following is required: qmp_socket, domain"),
        ("qemu_save", {"domain": "a", "qmp_socket": "/run/a.qmp"}, "mutually exclusive"),
        ("qemu_restore", {"domain": "a", "qmp_socket": "/run/a.qmp"}, "mutually exclusive"),
        ("qemu_save", {"domain": "a", "guest_state": "paused"}, "not go with guest_state"),
        ("qemu_restore", {"domain": "a", "load": "lazy"}, "not go with load"),
        ("qemu_save", {"domain": "a", "uri": "test+nothing:///x"}, "Connecting to test+nothing"),
    ],
)
def test_options_that_do_not_go_together_are_refused(store, name, options, words):
    options = {"path": store / "a.save", **options}
    result = run_alone(name, **options)
    assert result["failed"] and words in result["msg"]


def test_a_guest_of_one_gib_goes_through_all_three_modules(tiny_guest, store):
    guest = tiny_guest(memory_mib=1024, pattern_mib=64, zero_mib=64)
    guest.start()
    guest.wait_passes(1)
    path = store / "guest.save"
    place = {"qmp_socket": guest.qmp_socket, "path": path}
    parallel = {"parallel_channels": 2, "bypass_cache": True}

    planned = run_module("qemu_save", "--check", **place, **parallel)
    assert planned["changed"] is True
    assert not path.exists()

    saved = run_module("qemu_save", **place, **parallel)
    assert (saved["changed"], saved["guest"]["state"]) == (True, "stopped")
    assert saved["negotiated"]["parallel_channels"] == 2
    assert saved["negotiated"]["bypass_cache"] is True
    assert saved["migration"]["throughput_bytes_per_second"] > 0
    assert run_module("qemu_save", **place, **parallel)["changed"] is False

    told = run_module("qemu_saveimage_info", path=path, read_memory_map=True)
    (image,) = told["images"]
    status = path.stat()
    assert image == json.loads(json.dumps(image_info(path)))
    assert image["apparent_bytes"] == status.st_size
    assert image["allocated_bytes"] == status.st_blocks * 512
    assert image["present_pages"] >= 64 * 256
    assert image["present_pages"] + image["zero_pages"] == image["ram_bytes"] // 4096
    assert saved["image"]["present_pages"] == image["present_pages"]

    guest.start(incoming=True)
    restored = run_module("qemu_restore", **place, **parallel)
    assert (restored["changed"], restored["guest"]["state"]) == (True, "running")
    assert run_module("qemu_restore", **place)["changed"] is False
    guest.wait_passes(2)
    assert guest.mismatches == []


@pytest.mark.full
def test_an_image_is_rehearsed_foretold_and_restored_by_its_path_alone(tiny_guest, store):
    guest = tiny_guest().start()
    guest.wait_passes(1)
    path = store / "guest.save"
    run_module("qemu_save", qmp_socket=guest.qmp_socket, path=path)
    rehearsed = run_module("qemu_restore", path=path, rehearse=True)
    assert (rehearsed["changed"], rehearsed["plan"]["action"]) == (False, "rehearse")
    foretold = run_module("qemu_restore", "--check", path=path)
    assert not guest.alive()
    restored = run_module("qemu_restore", path=path)
    assert restored["changed"] is foretold["changed"] is True
    assert restored["plan"]["checks"] == foretold["plan"]["checks"]
    assert run_module("qemu_restore", path=path)["changed"] is False
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_a_password_in_argv_is_shown_nowhere(tiny_guest, store):
    secret = "hunter2hunter2"
    guest = tiny_guest(extra=("-object", f"secret,id=s0,data={secret}")).start()
    guest.wait_passes(1)
    path = store / "guest.save"
    run_module("qemu_save", qmp_socket=guest.qmp_socket, path=path)
    told = ansible("qemu_restore", "-vvv", "--diff", path=path, argv=guest.argv())
    assert secret not in told.stdout + told.stderr
    assert '"launch": "given"' in told.stdout
    guest.wait_passes(1)


def test_a_directory_lists_its_images_and_counts_the_other_files(tiny_guest, store):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    (store / "readme.txt").write_text("hello")
    run_module("qemu_save", qmp_socket=guest.qmp_socket, path=store / "a.save")
    (store / "b.save").write_bytes((store / "a.save").read_bytes()[:1000])
    told = run_module("qemu_saveimage_info", path=store)
    assert [Path(image["path"]).name for image in told["images"]] == ["a.save", "b.save"]
    assert [image["state"] for image in told["images"]] == ["ready", "invalid"]
    assert "offset" in told["images"][1]["problems"][0]
    assert told["skipped_files"] == 1
    assert run_module("qemu_saveimage_info", path=store / "gone")["images"] == []


def test_a_missing_library_is_named_with_the_way_to_get_it(tmp_path, store):
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    failed = run_module("qemu_save", python=python, qmp_socket=store / "q", path=store / "i")
    assert "qemu.qmp" in failed["msg"]
    assert "pip install qemu.qmp" in failed["msg"]
    assert str(python) in failed["msg"]


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        ("qemu_save", {"path": "relative.save"}, "absolute path"),
        ("qemu_save", {"timeout": -1}, "must not be negative"),
        ("qemu_save", {"parallel_channels": 256}, "between 1 and 255"),
        ("qemu_save", {"image_format": "raw", "parallel_channels": 2}, "sequential"),
        ("qemu_save", {"image_version": 3, "image_format": "sparse"}, "image_version 3"),
        ("qemu_save", {"uuid": "not-a-uuid"}, "not a UUID"),
    ],
)
def test_options_that_mean_nothing_are_refused_and_the_guest_runs_on(
    tiny_guest, store, module, options, words
):
    guest = tiny_guest()
    guest.start()
    place = {"qmp_socket": guest.qmp_socket, "path": store / "guest.save"}
    result = run_alone(module, **{**place, **options})
    assert result["failed"] and words in result["msg"]
    assert guest.status() == "running"
    assert list(store.iterdir()) == []
