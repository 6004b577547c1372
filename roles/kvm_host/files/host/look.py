# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell, as JSON, what the Python that runs this is and sees, and what lies at the path that it is
given, where an environment is to be. A Python older than 3.7 fails.

To be run isolated (-I): a directory `libvirt` where it happens to be started is no binding, and
what lies in root's home is not the host's.
"""

from __future__ import annotations

import json
import os
import re
import sys

# What is in a directory that a venv was made in; and, where pyvenv.cfg is missing, in those of them
# that tell it from another program's.
_TOP = re.compile(r"(bin|etc|include|lib|lib64|share|pyvenv\.cfg|\.gitignore)$")
_TOP_WITHOUT_CFG = re.compile(r"(bin|include|lib|lib64|\.gitignore)$")
_INSIDE = {
    "bin": re.compile(r"(python|pip|easy_install|[aA]ctivate|qmp-)"),
    "include": re.compile(r"python3"),
    "lib": re.compile(r"python3"),
}


def environment(prefix: str) -> dict[str, object] | None:
    """What pyvenv.cfg of an environment says: version it was made for, and whether it sees the
    distribution's packages; None outside of one."""
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as source:
            pairs = [line.partition("=") for line in source]
    except OSError:
        return None
    values = {key.strip(): value.strip() for key, _equals, value in pairs}
    return {
        "version": ".".join(values.get("version", "").split(".")[:2]),
        "sees_system": values.get("include-system-site-packages") == "true",
    }


def foreign(path: str) -> str | None:
    """What at ``path`` belongs to no environment and would be lost if one were made there; None
    where there is nothing of the kind. One whose making was cut off may lack its pyvenv.cfg: it is
    known by all that is in it."""
    if not os.path.isdir(path):
        return path if os.path.lexists(path) else None
    top = os.listdir(path)
    if "pyvenv.cfg" in top:
        return _first_unknown(path, _TOP)
    found = _first_unknown(path, _TOP_WITHOUT_CFG)
    for name in sorted(_INSIDE.keys() & set(top)):
        found = found or _first_unknown(os.path.join(path, name), _INSIDE[name])
    return found


def _first_unknown(directory: str, known: re.Pattern[str]) -> str | None:
    if not os.path.isdir(directory):
        return directory
    unknown = sorted(name for name in os.listdir(directory) if not known.match(name))
    return os.path.join(directory, unknown[0]) if unknown else None


def qmp_version() -> str | None:
    """Version of qemu.qmp; None where it is missing or broken."""
    try:
        from importlib import import_module
        from importlib.metadata import version

        import_module("qemu.qmp")
        return version("qemu.qmp")
    except Exception:  # whatever is wrong with it, it is made again
        return None


def has(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def look(place: str) -> dict[str, object]:
    """All of it. ``place``: where an environment is to be."""
    return {
        "version": ".".join(map(str, sys.version_info[:2])),
        "environment": environment(sys.prefix),
        "qmp": qmp_version(),
        "libvirt": has("libvirt"),
        "venv": has("venv") and has("ensurepip"),
        "pip": has("pip"),
        "foreign": foreign(place),
    }


if __name__ == "__main__":
    json.dump(look(sys.argv[1]), sys.stdout)
