# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the managed block at the beginning of a qemu.conf.

Nothing is changed but the directory of the caller's. There `candidate` is the whole new file, and
`managed-block` the old block alone: qemu.conf holds passwords, so only that may be shown.
Prints JSON: `differs`; `old_sha256` (null when there is no file) and `new_sha256` of the whole
text; `effective`, the values that libvirt will take of the new file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import stat

_BEGIN = b"# BEGIN ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
_END = b"# END ANSIBLE MANAGED BLOCK of vmfleet.suspend.qemu_conf\n"
_BLOCK = re.compile(re.escape(_BEGIN) + b"(.*?)" + re.escape(_END), re.DOTALL)
_ELSEWHERE = (
    b"# This block is not at the beginning of the file alone, where it wins over all others.\n"
)
_NEW_FILE_MODE = 0o600

_STRING = rb'"""(?:.*?)"""|"[^"\n]*"|\'[^\'\n]*\''
# Comments and the strings of lists match without a name. libvirt checks the syntax elsewhere.
_STATEMENT = re.compile(
    rb"#[^\n]*|([A-Za-z][A-Za-z0-9_]*)[ \t]*=[ \t]*(" + _STRING + rb"|[+-]?[0-9]+)?|" + _STRING,
    re.DOTALL,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("directory")
    parser.add_argument("--settings", required=True)
    arguments = parser.parse_args()
    old, mode = _read(arguments.path)
    settings = arguments.settings.encode()
    new = with_block(old or b"", settings)
    _write(os.path.join(arguments.directory, "candidate"), new, mode)
    _write(
        os.path.join(arguments.directory, "managed-block"), shown_block(old or b""), _NEW_FILE_MODE
    )
    report = {
        "differs": new != (old or b""),
        "old_sha256": None if old is None else hashlib.sha256(old).hexdigest(),
        "new_sha256": hashlib.sha256(new).hexdigest(),
        "effective": effective(new),
    }
    print(json.dumps(report))


def with_block(text: bytes, settings: bytes) -> bytes:
    """The text with these settings as its first lines; without a block when there are none."""
    rest = _BLOCK.sub(b"", text)
    return _BEGIN + settings + _END + rest if settings else rest


def shown_block(text: bytes) -> bytes:
    """The settings of the block that the text has, and whether it is not where it should be."""
    found = _BLOCK.search(text)
    if found is None:
        return b""
    return found[1] if with_block(text, found[1]) == text else _ELSEWHERE + found[1]


def effective(text: bytes) -> dict[str, str]:
    """The settings that can endanger a guest together; of several the first, as libvirt does."""
    wanted = (b"save_image_format", b"auto_start_bypass_cache")
    values: dict[str, str] = {}
    for found in _STATEMENT.finditer(text):
        if found[1] in wanted and found[2] is not None:
            value = found[2].strip(b"\"'").decode("ascii", "replace")
            values.setdefault(found[1].decode("ascii"), value)
    return values


def _read(path: str) -> tuple[bytes | None, int]:
    try:
        with open(path, "rb") as source:
            return source.read(), stat.S_IMODE(os.fstat(source.fileno()).st_mode)
    except FileNotFoundError:
        return None, _NEW_FILE_MODE


def _write(path: str, text: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _NEW_FILE_MODE)
    with os.fdopen(descriptor, "wb") as target:
        target.write(text)
        os.fchmod(descriptor, mode)


if __name__ == "__main__":
    main()
