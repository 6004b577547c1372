# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace a file, if it is still the one that was looked at; the old one stays beside it.

Owner, mode and extended attributes stay as they were. The file's time is the moment of replacing:
daemons that started before have not read it. Prints JSON: `backup` (path, or null when there was no
file). Says on stderr why nothing was changed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import time

_NEW_FILE_MODE = 0o600


class Changed(Exception):
    """The file is not the one that was looked at."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--text", help="a file with the new text; left out, the file is removed")
    parser.add_argument("--expect", help="SHA-256 of the file; left out, there must be none")
    arguments = parser.parse_args()
    try:
        backup = replace(arguments.path, arguments.text, arguments.expect)
    except Changed:
        sys.exit(f"{arguments.path} was changed by someone else meanwhile, and is left as it is.")
    except OSError as exc:
        sys.exit(f"{arguments.path} cannot be replaced: {exc}")
    print(json.dumps({"backup": backup}))


def replace(path: str, text: str | None, expect: str | None) -> str | None:
    """Give the path the text of a file, or none; gives where the old one is now.

    Raises `Changed` when the file's SHA-256 is not the expected one, `OSError`.
    """
    path = os.path.realpath(path)
    backup = _backup(path)
    new = _new_file(path, text)
    try:
        if sha256_of(backup or path) != expect:
            raise Changed
        if new is None:
            os.unlink(path)
        else:
            os.utime(new)
            os.rename(new, path)
    except BaseException:
        for left in filter(None, (new, backup)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        raise
    _flush(os.path.dirname(path))
    return backup


def sha256_of(path: str) -> str | None:
    """None when there is no such file."""
    try:
        with open(path, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()
    except FileNotFoundError:
        return None


def _backup(path: str) -> str | None:
    """A second name for the old file itself, of the form that Ansible gives its backups."""
    backup = f"{path}.{os.getpid()}.{time.strftime('%Y-%m-%d@%H:%M:%S~')}"
    try:
        os.link(path, backup)
    except FileNotFoundError:
        return None
    return backup


def _new_file(path: str, text: str | None) -> str | None:
    if text is None:
        return None
    # One name, so that what a killed run left is not left for ever.
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.vmfleet-new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE)
    with os.fdopen(descriptor, "wb") as target, open(text, "rb") as source:
        shutil.copyfileobj(source, target)
        with contextlib.suppress(FileNotFoundError):  # there was no file
            old = os.stat(path)
            os.fchown(descriptor, old.st_uid, old.st_gid)
            shutil.copystat(path, new)
        target.flush()
        os.fsync(descriptor)
    return new


def _flush(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
