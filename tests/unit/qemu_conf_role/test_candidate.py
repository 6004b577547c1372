# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The new qemu.conf: our block first, everything else as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._libvirt._qemu_conf import parse
from ansible_collections.vmfleet.suspend.roles.qemu_conf.files.host import candidate

BEGIN = b"# BEGIN ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
END = b"# END ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
KNOB = b'save_image_format = "sparse"\n'
OLD = b'save_image_format = "gzip"\n'
ADMIN = b"# mine\nuser = 'root'\n"
BLOCK = BEGIN + KNOB + END
NOTE = b"# This block is not at the beginning of the file alone, where it wins over all others.\n"


@pytest.mark.parametrize(
    ("old", "settings", "new", "shown"),
    [
        pytest.param(b"", KNOB, BLOCK, b"", id="no file"),
        pytest.param(ADMIN, KNOB, BLOCK + ADMIN, b"", id="first time"),
        pytest.param(BLOCK + ADMIN, KNOB, BLOCK + ADMIN, KNOB, id="nothing to do"),
        pytest.param(BEGIN + OLD + END + ADMIN, KNOB, BLOCK + ADMIN, OLD, id="another value"),
        pytest.param(BLOCK + ADMIN, b"", ADMIN, KNOB, id="no knob any more"),
        pytest.param(ADMIN, b"", ADMIN, b"", id="no knob, no block"),
        pytest.param(OLD + BLOCK, KNOB, BLOCK + OLD, NOTE + KNOB, id="below another line"),
        pytest.param(BLOCK + OLD + BLOCK, KNOB, BLOCK + OLD, NOTE + KNOB, id="twice"),
        pytest.param(b"user = 'a'", KNOB, BLOCK + b"user = 'a'", b"", id="no newline at the end"),
        pytest.param(b"\xff\r\n", KNOB, BLOCK + b"\xff\r\n", b"", id="bytes that are no text"),
    ],
)
def test_the_block_stands_first_and_once(old, settings, new, shown):
    assert candidate.with_block(old, settings) == new
    assert candidate.shown_block(old) == shown
    # What would change can be seen: check mode shows the two blocks and nothing else.
    assert (shown != settings) == (new != old)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ('save_image_format = "sparse"', {"save_image_format": "sparse"}),
        ("save_image_format='raw'", {"save_image_format": "raw"}),
        ('save_image_format = """zstd"""', {"save_image_format": "zstd"}),
        ('#save_image_format = "sparse"', {}),
        ('user = "a" # save_image_format = "sparse"', {}),
        ('user = "#"; auto_start_bypass_cache = 1', {"auto_start_bypass_cache": "1"}),
        ("auto_start_bypass_cache=1\nauto_start_bypass_cache=0", {"auto_start_bypass_cache": "1"}),
        ('a = """\nauto_start_bypass_cache = 1\n"""', {}),
        ('a = [ "x", "auto_start_bypass_cache = 1" ]', {}),
        ("x_auto_start_bypass_cache = 1", {}),
    ],
)
def test_the_first_active_value_counts_as_the_modules_read_it(text, values):
    assert candidate.effective(text.encode()) == values
    read = parse(text, "qemu.conf")
    known = {name: str(read[name].value) for name in values}
    assert known == values


def test_the_program_writes_beside_the_file_and_tells_what_it_read(tmp_path):
    conf = tmp_path / "qemu.conf"
    conf.write_bytes(ADMIN)
    conf.chmod(0o640)
    work = tmp_path / "work"
    work.mkdir()
    ran = subprocess.run(
        [sys.executable, candidate.__file__, conf, work, f"--settings={KNOB.decode()}"],
        capture_output=True,
        check=True,
    )
    assert json.loads(ran.stdout) == {
        "differs": True,
        "old_sha256": hashlib.sha256(ADMIN).hexdigest(),
        "new_sha256": hashlib.sha256(BLOCK + ADMIN).hexdigest(),
        "effective": {"save_image_format": "sparse"},
    }
    assert conf.read_bytes() == ADMIN
    assert (work / "candidate").read_bytes() == BLOCK + ADMIN
    assert (work / "candidate").stat().st_mode & 0o777 == 0o640
    assert (work / "managed-block").read_bytes() == b""
