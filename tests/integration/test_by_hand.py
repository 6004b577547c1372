# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page "A guest did not come back" says to do by hand, done."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import do_save, image_info

from .test_modules import run_module

PAGE = Path(__file__).resolve().parents[2] / "docs" / "docsite" / "rst" / "troubleshooting.rst"
IMAGE = "/var/lib/vmfleet/images/web01.save"


def offset_of(path):
    (command,) = re.findall(r"^ +(echo \$\(\(92 .*)$", PAGE.read_text(), re.MULTILINE)
    command = command.replace("web01.save", str(path))
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout


def loaded(guest):
    end = time.monotonic() + 60
    while "completed" not in guest.hmp("info migrate"):
        assert time.monotonic() < end, guest.hmp("info migrate")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "sequential",
    [False, pytest.param(True, marks=pytest.mark.full)],
    ids=["mapped-ram", "sequential"],
)
def test_qemu_alone_brings_a_guest_back(tiny_guest, store, sequential):
    guest = tiny_guest(name="web01").start()
    guest.wait_passes(1)
    path = store / "web01.save"
    kind: dict[str, Any] = {"image_version": 2, "image_format": "raw"} if sequential else {}
    do_save(guest.qmp_socket, path, **kind)
    offset = offset_of(path).strip()
    assert offset == str(image_info(path)["data_offset_bytes"])
    guest.start(incoming=True)
    if sequential:
        (feeding,) = re.findall(r'``(migrate_incoming "exec:[^`]*)``', PAGE.read_text())
        guest.hmp(feeding.replace("FIRST", str(int(offset) + 1)).replace("web01.save", str(path)))
        loaded(guest)
        guest.hmp("cont")
    else:
        for command in re.findall(r"^ +\(qemu\) (.*)$", PAGE.read_text(), re.MULTILINE):
            if command == "cont":
                loaded(guest)
            guest.hmp(command.replace(IMAGE, str(path)).replace("OFFSET", offset))
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_virsh_alone_brings_a_domain_back(domain, store):
    path = store / "web02.save"
    run_module("qemu_save", domain=domain.name, uri=domain.host.uri, path=path)
    page = PAGE.read_text().replace("/var/lib/vmfleet/images/web02.save", str(path))
    (command,) = re.findall(r"^ +virsh (restore .*)$", page, re.MULTILINE)
    domain.host.virsh(*command.split())
    (move,) = re.findall(r"^ +(mv .*)$", page, re.MULTILINE)
    subprocess.run(["sh", "-c", move], check=True)
    (autostart,) = re.findall(r"``virsh (autostart web02)``", page)
    domain.host.virsh(*autostart.replace("web02", domain.name).split())
    assert list(store.iterdir()) == [path.with_name(f"{path.name}.restored")]
    domain.wait_passes(2)
    assert domain.mismatches == []
