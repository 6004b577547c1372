# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The SELinux label of an open file (xattr(7), security.selinux)."""

from __future__ import annotations

import errno
import os

_NAME = "security.selinux"
_NO_LABEL = (errno.ENODATA, errno.EOPNOTSUPP)


def read_label(fd: int) -> str:
    """The label; empty for a file without one. Raises `OSError`."""
    try:
        return os.fsdecode(os.getxattr(fd, _NAME)).rstrip("\0")
    except OSError as exc:
        if exc.errno in _NO_LABEL:
            return ""
        raise


def write_label(fd: int, label: str) -> None:
    """Set the label; an empty one removes it. Raises `OSError`, EOPNOTSUPP where the filesystem has
    one label for all its files."""
    if label:
        os.setxattr(fd, _NAME, os.fsencode(label) + b"\0")
    elif read_label(fd):
        os.removexattr(fd, _NAME)


def new_label(directory: str) -> str:
    """The label of files that are created in ``directory``. Raises `OSError`."""
    fd = os.open(directory or ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        return read_label(fd)
    finally:
        os.close(fd)
