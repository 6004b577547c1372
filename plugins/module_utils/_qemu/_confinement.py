# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What mandatory access control binds a QEMU: SELinux or AppArmor, as the kernel tells."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, replace

from ._selinux_policy import image_label, is_enforcing, read_policy

NONE = "none"
SELINUX = "selinux"
APPARMOR = "apparmor"

ENFORCING = "enforcing"
PERMISSIVE = "permissive"

# proc_pid_attr(5). A kernel with several security modules has a directory for AppArmor; the plain
# file tells of whichever module comes first.
_ATTRIBUTES = ("attr/apparmor/current", "attr/current")
_APPARMOR = re.compile(r"(?P<label>.+) \((?P<mode>[a-z]+)\)", re.DOTALL)
_SELINUX = re.compile(r"[^:\s]+:[^:\s]+:[^:\s]+(?::\S+)?")


@dataclass(frozen=True)
class Confinement:
    """``system``: `NONE`, `SELINUX` or `APPARMOR`. ``label``: the SELinux context, or the name of
    the AppArmor profile. ``mode``: AppArmor's word for the profile's (enforce, complain, kill,
    unconfined, mixed, prompt), or `ENFORCING` or `PERMISSIVE`. ``image_label``: the SELinux context
    that its image needs, None where the policy has none for it."""

    system: str = NONE
    label: str = ""
    mode: str = ""
    image_label: str | None = None


UNCONFINED = Confinement()


def parse_attribute(text: str) -> Confinement:
    """What a process's ``current`` attribute says: ``libvirt-UUID (enforce)``, ``unconfined``, or
    ``system_u:system_r:svirt_t:s0:c1,c2``. Words of other security modules count as none."""
    text = text.rstrip("\n\0")
    found = _APPARMOR.fullmatch(text)
    if found is not None:
        return Confinement(APPARMOR, found.group("label"), found.group("mode"))
    if _SELINUX.fullmatch(text):
        return Confinement(SELINUX, text)
    return UNCONFINED


def confinement_of(pid: int, root: str = "/") -> Confinement:
    """What binds this process; nothing where the kernel does not tell."""
    found = _read_attribute(os.path.join(root, "proc", str(pid)))
    if found.system != SELINUX:
        return found
    return replace(
        found,
        mode=ENFORCING if is_enforcing(root) else PERMISSIVE,
        image_label=image_label(found.label, read_policy(root)),
    )


def _read_attribute(directory: str) -> Confinement:
    for name in _ATTRIBUTES:
        try:
            with open(f"{directory}/{name}", encoding="utf-8", errors="surrogateescape") as file:
                return parse_attribute(file.read())
        except OSError:  # EINVAL: no security module that has this
            continue
    return UNCONFINED


def apparmor_allows(
    profile: str, path: str, *, write: bool, query: t.Callable[[bytes], bytes] | None = None
) -> bool | None:
    """Whether ``profile`` lets its processes read, and with ``write`` write too, the file at
    ``path``; None when the kernel does not answer."""
    # As libapparmor's aa_query_file_path() asks: command, label, class of files, path.
    question = b"\0".join((b"label", os.fsencode(profile), _CLASS_FILE + os.fsencode(path)))
    try:
        answer = dict(line.split() for line in (query or _ask)(question).decode().splitlines())
        granted = int(answer["allow"], 16) & ~int(answer["deny"], 16)
    except (OSError, KeyError, ValueError):
        return None
    wanted = _MAY_READ | (_MAY_WRITE if write else 0)
    return granted & wanted == wanted


_CLASS_FILE = b"\x02"
_MAY_WRITE = 0x2
_MAY_READ = 0x4
_ACCESS = "/sys/kernel/security/apparmor/.access"
_ANSWER_BYTES = 128


def _ask(question: bytes) -> bytes:
    fd = os.open(_ACCESS, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, question)
        return os.read(fd, _ANSWER_BYTES)
    finally:
        os.close(fd)
