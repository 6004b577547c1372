# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let libvirt judge a qemu.conf, and tell what the host has.

libvirt's embedded driver reads the file as the daemon would, parser and checks alike, without any
daemon. Prints JSON: `error` (libvirt's words, or null), `libvirt` and `qemu` (versions, null when
there is none), `missing_program` (the compressor of `--image-format` that is not installed).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile

import libvirt

_COMPRESSORS = ("gzip", "bzip2", "xz", "lzop", "zstd")
# Where libvirt looks for the host's own QEMU, in its order (src/qemu/qemu_capabilities.c).
_EMULATORS = (f"qemu-system-{platform.machine()}", "/usr/libexec/qemu-kvm", "qemu-kvm", "kvm")
_ANSWER_SECONDS = 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--image-format", default="raw")
    arguments = parser.parse_args()
    report = {
        "error": error_of(arguments.path),
        "libvirt": version_text(libvirt.getVersion()),
        "qemu": qemu_version(),
        "missing_program": missing_program(arguments.image_format),
    }
    print(json.dumps(report))


def error_of(path: str) -> str | None:
    """What libvirt says against the file; None when it takes it."""
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised, not printed too
    libvirt.virEventRegisterDefaultImpl()
    with tempfile.TemporaryDirectory(prefix="vmfleet-qemu-conf-") as root:
        os.mkdir(os.path.join(root, "etc"), 0o700)
        candidate = os.path.join(root, "etc", "qemu.conf")
        shutil.copy(path, candidate)
        try:
            libvirt.open(f"qemu:///embed?root={root}").close()
        except libvirt.libvirtError as exc:
            return str(exc).replace(candidate, "the new qemu.conf")
    return None


def version_text(number: int) -> str:
    """libvirt's number as people write it: 11003000 is 11.3.0."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def qemu_version() -> str | None:
    """What the host's own QEMU says; None when there is no QEMU."""
    for name in _EMULATORS:
        program = shutil.which(name)
        if program is None:
            continue
        ran = subprocess.run(
            [program, "-version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
        found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", ran.stdout)
        return found[1] if found else None
    return None


def missing_program(image_format: str) -> str | None:
    """libvirt runs the program that has the format's name."""
    if image_format in _COMPRESSORS and shutil.which(image_format) is None:
        return image_format
    return None


if __name__ == "__main__":
    main()
