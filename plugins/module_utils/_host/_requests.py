# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What is asked of a host, and what that means for each of its guests."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, field

from .._errors import Refused
from .._restore._domain_request import DomainRestoreRequest, ManagedRestoreRequest
from .._restore._request import RestoreRequest
from .._save._domain_request import DomainSaveRequest, ManagedSaveRequest
from .._save._request import SaveRequest
from ._guests import HostGuest, Source
from ._wishes import Wish, Wishes

AnySave = t.Union[SaveRequest, DomainSaveRequest, ManagedSaveRequest]
AnyRestore = t.Union[RestoreRequest, DomainRestoreRequest, ManagedRestoreRequest]

CONTINUE, ROLLBACK = "continue", "rollback"
REFUSE, DISABLE = "refuse", "disable"
MANAGED = "managed"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_CHARACTERS = 150
# Options of a single save or restore that go with a domain; with a managed save even fewer do.
_DOMAIN_SAVE = (
    "image_version",
    "image_format",
    "parallel_channels",
    "bypass_cache",
    "domain_xml_file",
    "overwrite",
    "timeout_seconds",
    "qemu_conf",
)
_DOMAIN_RESTORE = (
    "parallel_channels",
    "bypass_cache",
    "run_state",
    "allow",
    "remove_image",
    "timeout_seconds",
)
_MANAGED_SAVE = ("bypass_cache", "timeout_seconds", "qemu_conf")
_MANAGED_RESTORE = ("bypass_cache", "run_state")


@dataclass(frozen=True)
class HostRequest:
    """What both directions take. ``save`` and ``restore`` hold options for every guest, each only
    where it was given; a guest's own wish has precedence."""

    store: str
    journal: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)
    max_concurrent: int | None = None
    defaults: t.Mapping[str, t.Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SuspendRequest(HostRequest):
    """The options of qemu_host_suspend, None where left out. Units: seconds; ``hold_until``: ISO
    8601."""

    qmp_sockets: tuple[str, ...] = ()
    uri: str | None = None
    window_seconds: float | None = None
    hold_until: str | None = None
    on_failure: str = CONTINUE
    competing: str = REFUSE
    qemu_conf: str = "/etc/libvirt/qemu.conf"


@dataclass(frozen=True)
class ResumeRequest(HostRequest):
    """The options of qemu_host_resume."""

    sync_clock: bool = True


def image_path(store: str, guest: HostGuest) -> str:
    """Where the image of a guest goes: ``NAME-UUID.save``, its name made fit for a file's."""
    name = _UNSAFE.sub("_", guest.name).strip("._")[:_NAME_CHARACTERS] or "guest"
    return os.path.join(store, f"{name}-{guest.uuid}.save" if guest.uuid else f"{name}.save")


def save_request(
    request: SuspendRequest, guest: HostGuest, wish: Wish, channels: int | None = None
) -> AnySave:
    """The single save of this guest. ``channels``: what the host's plan gives it where nobody asked
    for a number. Raises `Refused` for an option that does not go with libvirt."""
    options = {"qemu_conf": request.qemu_conf, **request.defaults, **wish.save}
    managed = options.pop(MANAGED, False)
    if channels is not None:
        options.setdefault("parallel_channels", channels)
    path = options.pop("path", None) or image_path(request.store, guest)
    source = guest.source
    if source.qmp_socket is not None:
        _refuse_managed(guest, managed)
        return SaveRequest(path=path, qmp_socket=source.qmp_socket, **options)
    uri, domain = _domain_of(guest.name, source)
    domain = guest.uuid or domain  # names can change while a host is suspended
    allowed = _MANAGED_SAVE if managed else _DOMAIN_SAVE
    mine = _only(allowed, guest, options, wish.save)
    if managed:
        return ManagedSaveRequest(domain=domain, uri=uri, **mine)
    return DomainSaveRequest(path=path, domain=domain, uri=uri, **mine)


def restore_request(
    guest: HostGuest,
    path: str,
    options: t.Mapping[str, t.Any],
    wish: Wish,
    *,
    managed: bool,
    run_state: str | None,
) -> AnyRestore:
    """The single restore of an image. ``options``: what is asked for every guest; ``run_state``:
    what the host's plan decides, None as the image says."""
    merged = {**options, **wish.restore}
    if run_state is not None:
        merged["run_state"] = run_state
    source = guest.source
    if source.qmp_socket is not None:
        # Where the image says: the socket that discovery found is of the same guest.
        return RestoreRequest(path=path, **merged)
    uri, domain = _domain_of(guest.name, source)
    asked = set(wish.restore)
    if managed:
        asked.discard("timeout_seconds")  # one option for both directions, and of use to the save
    mine = _only(_MANAGED_RESTORE if managed else _DOMAIN_RESTORE, guest, merged, asked)
    if managed:
        return ManagedRestoreRequest(domain=guest.uuid or domain, uri=uri, **mine)
    return DomainRestoreRequest(path=path, domain=guest.uuid or domain, uri=uri, **mine)


def _domain_of(name: str, source: Source) -> tuple[str, str]:
    if source.uri is None or source.domain is None:
        raise Refused(f"{name} has neither a monitor nor a domain to reach it by.")
    return source.uri, source.domain


def _refuse_managed(guest: HostGuest, managed: bool) -> None:
    if managed:
        raise Refused(
            f"Option guests asks for a managed save of {guest.name}, which libvirt does not run."
        )


def _only(
    allowed: t.Sequence[str],
    guest: HostGuest,
    options: t.Mapping[str, t.Any],
    asked: t.Iterable[str],
) -> dict[str, t.Any]:
    """Options that go with libvirt. What was asked for all guests is for those that it fits."""
    wrong = sorted(set(asked) - {*allowed, "path", MANAGED})
    if wrong:
        raise Refused(
            f"Option guests asks for {', '.join(wrong)} of {guest.name}, which does not go with a "
            "domain of libvirt. Leave that out."
        )
    return {key: value for key, value in options.items() if key in allowed}
