# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README shows was run: here it is run again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.vmfleet.suspend.tests.support.drive import image_info

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_first_playbook_of_the_readme_saves_a_guest_and_brings_it_back(
    tiny_guest, store, tmp_path
):
    guest = tiny_guest()
    guest.start()
    guest.wait_passes(1)
    (first, *_rest) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(
        first.replace("/run/qemu/web01.qmp", guest.qmp_socket).replace(
            "/var/lib/vmfleet/images", str(store)
        )
    )
    inventory = tmp_path / "inventory.json"
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"kvm_hosts": {"hosts": {"kvm1": host}}}))
    subprocess.run(["ansible-playbook", "-i", str(inventory), str(playbook)], check=True)
    assert image_info(store / "web01.save")["state"] == "spent"
    guest.wait_passes(2)
    assert guest.mismatches == []
