# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Lending an image to a confined QEMU: its label while QEMU uses it, and the one from before.

The label carries the guest's own categories, which another guest may get one day: it must not stay.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ._image_access import ImageAccess, decide_access, is_asked, unlabelled
from ._qemu._confinement import Confinement, apparmor_allows, confinement_of
from ._qemu._selinux_policy import type_of
from ._saveimage._label import new_label, read_label, write_label
from ._saveimage._store_kind import mount_of


class Lent(t.NamedTuple):
    """``label_before``: the label to give back, empty for none at all; None where it is not known
    or nothing was changed."""

    label_before: str | None = None
    warnings: tuple[str, ...] = ()


def look_at_access(process: Confinement, path: str, *, write: bool) -> ImageAccess:
    """What an image at ``path`` needs for this QEMU. Raises as `decide_access`."""
    own = confinement_of(os.getpid())
    path = os.path.realpath(path)
    allowed = None
    if is_asked(process, own):
        allowed = apparmor_allows(process.label, path, write=write)
    return decide_access(process, own, path, write=write, allowed=allowed)


def lend(fd: int, path: str, access: ImageAccess) -> Lent:
    """Label the image for QEMU, before QEMU gets it. Raises `Refused`; nothing is changed then."""
    if access.label is None:
        return Lent()
    try:
        before = read_label(fd)
        if before != access.label:
            write_label(fd, access.label)
        # One for QEMU was left by a run that died, or by libvirt: nothing to go back to.
        return Lent(None if type_of(before) == type_of(access.label) else before)
    except OSError as exc:
        mount = mount_of(fd)
        kind = mount.kind if mount is not None else "this filesystem"
        return Lent(warnings=(unlabelled(access, path, exc.errno, kind),))


def lend_pipe(fd: int, access: ImageAccess) -> None:
    """Label a pipe for QEMU. Where that fails, QEMU says so when it is given the pipe."""
    if access.label is not None:
        with contextlib.suppress(OSError):
            write_label(fd, access.label)


def label_of(fd: int) -> str | None:
    """The label of an image that libvirt is to write; None where it cannot be read."""
    with contextlib.suppress(OSError):
        return read_label(fd)
    return None


def give_back(
    fd: int, path: str, label: str | None, label_before: str | None = None
) -> tuple[str, ...]:
    """Take the ``label`` of a QEMU off the image, if it has it; warnings when that failed.

    Without ``label_before`` it gets the one of a new file in its directory: what QEMU or the image
    remember of it could be forged by the guest.
    """
    if label is None:
        return ()
    try:
        if read_label(fd) == label:
            before = label_before if label_before is not None else new_label(os.path.dirname(path))
            write_label(fd, before)
    except OSError as exc:
        return (
            f"{path} keeps the SELinux label of its guest, {label}, because the one of its "
            f"directory could not be given back: {exc.strerror}. Run restorecon on it.",
        )
    return ()
