# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The SELinux label of a QEMU's images, derived from the label that the QEMU runs with.

As libvirt derives it (virSecuritySELinuxGenLabel of 11.3): role and type come from the policy's
virtual_image_context, user and level, with the guest's own categories, from the process. For a
domain of libvirt that is the imagelabel of its live XML.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_ENFORCE = "sys/fs/selinux/enforce"
_CONFIG = "etc/selinux/config"
_USUAL_POLICY = "targeted"
_USER, _TYPE = 0, 2


@dataclass(frozen=True)
class Policy:
    """``domain_types``: what libvirt runs QEMU as; ``image_context``: the label of their images
    without user and level, None where the policy names none."""

    domain_types: frozenset[str] = frozenset()
    image_context: str | None = None


def type_of(context: str) -> str:
    """The type in a context; empty where there is none."""
    fields = context.split(":")
    return fields[_TYPE] if len(fields) > _TYPE else ""


def image_label(context: str, policy: Policy) -> str | None:
    """The label for images of a QEMU that runs as ``context``; None for types that are not
    libvirt's, of which nothing tells what they may write to."""
    process = context.split(":", 3)
    if policy.image_context is None or type_of(context) not in policy.domain_types:
        return None
    _user, role, image_type = policy.image_context.split(":")[:3]
    return ":".join([process[_USER], role, image_type, *process[3:]])


def is_enforcing(root: str = "/") -> bool:
    """Whether SELinux denies, rather than only logs; so it is taken to where nothing tells."""
    lines = _lines(os.path.join(root, _ENFORCE))
    return lines != ["0"]


def read_policy(root: str = "/") -> Policy:
    """What the installed policy says of virtual machines (selinux_config(5))."""
    name = _USUAL_POLICY
    for line in _lines(os.path.join(root, _CONFIG)):
        key, _equals, value = line.partition("=")
        if key.strip() == "SELINUXTYPE":
            name = value.strip()
    contexts = os.path.join(root, "etc/selinux", name, "contexts")
    domains = filter(type_of, _lines(f"{contexts}/virtual_domain_context"))
    images = filter(type_of, _lines(f"{contexts}/virtual_image_context"))
    return Policy(frozenset(map(type_of, domains)), next(images, None))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file if line.strip()]
    except OSError:
        return []
