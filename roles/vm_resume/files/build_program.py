# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the program of the hosts, a zipapp, from the collection's module_utils.

The same sources give the same bytes on every controller: sorted, stored as they are, without times.
Needs Python >= 3.8 and nothing else.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGE = "vmfleet_suspend"
# The only one that needs Ansible.
LEFT_OUT = {"_ansible.py"}
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = f"""\
import sys

from {PACKAGE}._program import main

sys.exit(main())
"""
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def build(module_utils: Path, target: Path) -> None:
    """Write the program made of the package in ``module_utils`` to ``target``."""
    sources = {
        f"{PACKAGE}/{path.relative_to(module_utils).as_posix()}": path.read_bytes()
        for path in module_utils.rglob("*.py")
        if path.relative_to(module_utils).as_posix() not in LEFT_OUT
    }
    sources["__main__.py"] = _MAIN.encode()
    with target.open("wb") as program:
        program.write(_SHEBANG)
        with zipfile.ZipFile(program, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(sources):
                entry = zipfile.ZipInfo(name, _NO_TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, sources[name])


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
