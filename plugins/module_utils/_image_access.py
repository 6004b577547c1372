# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What an image needs so that a confined QEMU may use it: pure decisions.

QEMU gets descriptors and opens nothing itself, so that owner and mode of the image can stay root's
alone, 0600. Mandatory access control asks once more when QEMU receives a descriptor. The page
docs/docsite/rst/security.rst shows the table.
"""

from __future__ import annotations

import errno
import os
import typing as t
from dataclasses import dataclass

from ._errors import Refused
from ._qemu._confinement import APPARMOR, ENFORCING, SELINUX, Confinement
from ._qemu._selinux_policy import type_of

# Types of the usual policies that may use every file.
_FREE_TYPES = (
    "initrc_t",
    "kernel_t",
    "qemu_unconfined_t",
    "spc_t",
    "unconfined_service_t",
    "unconfined_t",
)
_KILL = "kill"
_LENIENT = ("complain", "unconfined")
_OVERRIDE = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
# What governs filesystems whose files cannot be labelled one by one.
_BOOLEANS = (
    ("nfs", "virt_use_nfs"),
    ("cifs", "virt_use_samba"),
    ("smb", "virt_use_samba"),
    ("fuse", "virt_use_fusefs"),
)


@dataclass(frozen=True)
class ImageAccess:
    """``label``: the SELinux label that the image has to have while QEMU uses it, None for the one
    that it has; ``enforced``: without it QEMU would be denied the image."""

    label: str | None = None
    enforced: bool = False
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, t.Any]:
        """For the plan: nothing where nothing is to be done."""
        return {"image_label": self.label} if self.label is not None else {}


NOTHING_NEEDED = ImageAccess()


def confined_by(process: Confinement) -> str | None:
    """What denies this process something, in words; None when nothing does."""
    if process.system == SELINUX and type_of(process.label) not in _FREE_TYPES:
        return f"SELinux (type {type_of(process.label)})"
    if process.system == APPARMOR and process.mode not in _LENIENT:
        return f"AppArmor (profile {process.label})"
    return None


def lost_confinement(before: str | None, process: Confinement) -> tuple[str, ...]:
    """The warning about a QEMU that nothing confines, where the one that was saved was confined."""
    if before is None or confined_by(process) is not None:
        return ()
    return (
        f"The QEMU that the guest was saved from was confined by {before}, and the one that takes "
        "it is not. Restore it through what confined it, libvirt as a rule.",
    )


def decide_access(
    process: Confinement, own: Confinement, path: str, *, write: bool, allowed: bool | None
) -> ImageAccess:
    """``process``: QEMU; ``own``: this run, which opens the image; ``path``: as the kernel knows
    it; ``allowed``: what AppArmor answers for it, None where it was not asked or does not answer.

    Raises `Refused` where QEMU would be denied the image, or be killed for taking it.
    """
    if process.system == SELINUX:
        return _by_selinux(process)
    if process.system == APPARMOR:
        return _by_apparmor(process, own, path, write=write, allowed=allowed)
    return NOTHING_NEEDED


def _by_selinux(process: Confinement) -> ImageAccess:
    enforced = process.mode == ENFORCING
    if process.image_label is not None:
        return ImageAccess(process.image_label, enforced)
    own_type = type_of(process.label)
    if own_type in _FREE_TYPES or not enforced:
        return NOTHING_NEEDED
    warning = (
        f"QEMU runs as SELinux type {own_type}, of which it is not known what an image "
        "must be labelled for it: the image keeps the label of its directory. If QEMU is refused "
        "it, label that directory with a type that it may use (semanage fcontext, restorecon)."
    )
    return ImageAccess(warnings=(warning,))


def is_asked(process: Confinement, own: Confinement) -> bool:
    """Whether AppArmor must allow it: it lets a confined process use what an unconfined one opened
    (aa_file_perm() of Linux 6.6). Where a mistake would end the guest, it is asked all the same."""
    if process.system != APPARMOR or process.mode in _LENIENT:
        return False
    return process.mode == _KILL or (own.system == APPARMOR and own.mode != "unconfined")


def _by_apparmor(
    process: Confinement, own: Confinement, path: str, *, write: bool, allowed: bool | None
) -> ImageAccess:
    if not is_asked(process, own) or allowed:
        return NOTHING_NEEDED
    rule = f'"{os.path.dirname(path)}/**" {"rw" if write else "r"},'
    advice = f"Add the rule {rule} to {_OVERRIDE} and load the profile again (apparmor_parser -r)."
    if process.mode != _KILL:
        advice += " Or run this unconfined, as Ansible usually is."
    if allowed is None and process.mode != _KILL:
        warning = (
            f"Whether the AppArmor profile {process.label} lets QEMU use {path} is not known. If "
            f"QEMU is refused it: {advice}"
        )
        return ImageAccess(warnings=(warning,))
    denied = "does not let" if allowed is False else "may not let"
    killed = " and would kill it, with the guest, for trying" if process.mode == _KILL else ""
    raise Refused(
        f"The AppArmor profile {process.label} {denied} QEMU use {path}{killed}. {advice} Nothing "
        "was done."
    )


def unlabelled(access: ImageAccess, path: str, number: int | None, filesystem: str) -> str:
    """The warning about an image that could not be labelled, because of this errno.

    Raises `Refused` where QEMU would be denied it.
    """
    why = os.strerror(number or 0)
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        switch = next((name for kind, name in _BOOLEANS if filesystem.startswith(kind)), None)
        advice = (
            f"switch on {switch} (setsebool -P {switch} on)"
            if switch is not None
            else f"mount it with a context that QEMU may use, such as {access.label}"
        )
        return (
            f"Files on {filesystem} cannot be labelled one by one, so {path} was not labelled for "
            f"QEMU. If SELinux denies QEMU the image: {advice}."
        )
    if not access.enforced:
        return f"{path} could not be labelled {access.label}: {why}. SELinux is permissive."
    raise Refused(
        f"{path} cannot be labelled {access.label}, without which SELinux denies it to QEMU: "
        f"{why}. Run this as a user that may relabel files there, root as a rule. QEMU was given "
        "nothing."
    )
