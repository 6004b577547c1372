# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Options of the host modules: what an argument spec says of them, and what they become."""

from __future__ import annotations

import datetime
import os
import typing as t

from .._errors import Refused
from .._restore._afterwards import READY_CHECK, wanted_of
from ._requests import ResumeRequest, SuspendRequest
from ._wishes import POLICIES, Wish, Wishes

STORE = "/var/lib/vmfleet/images"
JOURNAL = "/var/lib/vmfleet/journal"
_SAVE_ALLOWS = ("lose_bitmaps",)
_RESTORE_ALLOWS = ("changed_disks", "other_machine", "spent", "unsteady_store")
_IMAGE_FORMATS = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"]
_BOTH = ("parallel_channels", "bypass_cache", "systemd_unit")
_SAVE = (
    "path",
    "managed",
    "uuid",
    "image_version",
    "image_format",
    "max_bandwidth",
    "verify",
    "domain_xml_file",
    "overwrite",
)
_RESTORE = (
    "argv",
    "load",
    "prefetch",
    "run_state",
    "trust_recorded_argv",
    "reset_shared_memory",
    "remove_image",
)
_PATHS = ("path", "domain_xml_file")

# One guest's entry in option guests, the same for both modules, so that one list serves both.
GUEST_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    name=dict(type="str", required=True),
    priority=dict(type="int", default=0),
    depends_on=dict(type="list", elements="str", default=[]),
    group=dict(type="str"),
    policy=dict(type="str", choices=list(POLICIES)),
    path=dict(type="path"),
    managed=dict(type="bool"),
    uuid=dict(type="str"),
    image_version=dict(type="int", choices=[2, 3]),
    image_format=dict(type="str", choices=_IMAGE_FORMATS),
    parallel_channels=dict(type="int"),
    bypass_cache=dict(type="bool"),
    max_bandwidth=dict(type="bytes"),
    verify=dict(type="str", choices=["structure", "content"]),
    domain_xml_file=dict(type="path"),
    overwrite=dict(type="bool"),
    systemd_unit=dict(type="str"),
    allow=dict(type="list", elements="str", choices=[*_SAVE_ALLOWS, *_RESTORE_ALLOWS], default=[]),
    timeout=dict(type="int"),
    argv=dict(type="list", elements="str"),
    load=dict(type="str", choices=["eager", "lazy"]),
    prefetch=dict(type="str", choices=["none", "background", "full"]),
    run_state=dict(type="str", choices=["as_saved", "running", "paused"]),
    trust_recorded_argv=dict(type="bool"),
    reset_shared_memory=dict(type="bool"),
    remove_image=dict(type="bool"),
    ready_check=READY_CHECK,
)

HOST_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    store=dict(type="path", default=STORE),
    journal=dict(type="path", default=JOURNAL),
    include=dict(type="list", elements="str", default=[]),
    exclude=dict(type="list", elements="str", default=[]),
    guests=dict(type="list", elements="dict", default=[], options=GUEST_ARGUMENTS),
    max_concurrent=dict(type="int"),
    parallel_channels=dict(type="int"),
    bypass_cache=dict(type="bool"),
    timeout=dict(type="int", default=0),
)

SUSPEND_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    HOST_ARGUMENTS,
    qmp_sockets=dict(type="list", elements="str", default=[]),
    uri=dict(type="str"),
    window_seconds=dict(type="int"),
    hold_until=dict(type="str"),
    on_failure=dict(type="str", choices=["continue", "rollback"], default="continue"),
    competing=dict(type="str", choices=["refuse", "disable"], default="refuse"),
    image_version=dict(type="int", choices=[2, 3]),
    image_format=dict(type="str", choices=_IMAGE_FORMATS),
    qemu_conf=dict(type="path", default="/etc/libvirt/qemu.conf"),
)

RESUME_ARGUMENTS: dict[str, dict[str, t.Any]] = dict(
    HOST_ARGUMENTS,
    load=dict(type="str", choices=["eager", "lazy"]),
    sync_clock=dict(type="bool", default=True),
)


def suspend_request(params: t.Mapping[str, t.Any]) -> SuspendRequest:
    """Options of qemu_host_suspend. Raises `Refused` for what an argument spec cannot express."""
    if not params["qmp_sockets"] and params["uri"] is None:
        raise Refused("Name the guests of this host: qmp_sockets, uri, or both.")
    if params["window_seconds"] is not None and params["window_seconds"] <= 0:
        raise Refused(f"window_seconds must be positive, not {params['window_seconds']}.")
    if params["hold_until"] is not None:
        require_time("hold_until", params["hold_until"])
    _require_absolute(params, "store", "journal", "qemu_conf")
    defaults = _given(params, "parallel_channels", "bypass_cache", "image_version", "image_format")
    return SuspendRequest(
        **_common(params, defaults),
        qmp_sockets=tuple(params["qmp_sockets"]),
        uri=params["uri"],
        window_seconds=params["window_seconds"],
        hold_until=params["hold_until"],
        on_failure=params["on_failure"],
        competing=params["competing"],
        qemu_conf=params["qemu_conf"],
    )


def resume_request(params: t.Mapping[str, t.Any]) -> ResumeRequest:
    """Options of qemu_host_resume. Raises `Refused`."""
    _require_absolute(params, "store", "journal")
    defaults = _given(params, "parallel_channels", "bypass_cache", "load")
    return ResumeRequest(**_common(params, defaults), sync_clock=params["sync_clock"])


def _common(params: t.Mapping[str, t.Any], defaults: dict[str, t.Any]) -> dict[str, t.Any]:
    if params["timeout"] < 0:
        raise Refused(f"timeout must not be negative: {params['timeout']}.")
    if params["max_concurrent"] is not None and params["max_concurrent"] < 1:
        raise Refused(f"max_concurrent must be 1 or more, not {params['max_concurrent']}.")
    if params["timeout"]:
        defaults["timeout_seconds"] = params["timeout"]
    return {
        "store": os.path.normpath(params["store"]),
        "journal": os.path.normpath(params["journal"]),
        "include": tuple(params["include"]),
        "exclude": tuple(params["exclude"]),
        "wishes": Wishes([_wish(entry) for entry in params["guests"]]),
        "max_concurrent": params["max_concurrent"],
        "defaults": defaults,
    }


def _wish(entry: t.Mapping[str, t.Any]) -> Wish:
    _require_absolute(entry, *_PATHS)
    wanted_of(True, entry["ready_check"])  # refused here, not once a guest runs
    both = _given(entry, *_BOTH)
    if entry["timeout"] is not None:
        both["timeout_seconds"] = entry["timeout"]
    save = {**both, **_given(entry, *_SAVE)}
    restore = {**both, **_given(entry, *_RESTORE)}
    for options, known in ((save, _SAVE_ALLOWS), (restore, _RESTORE_ALLOWS)):
        allowed = frozenset(entry["allow"]) & frozenset(known)
        if allowed:
            options["allow"] = allowed
    if "argv" in restore:
        restore["argv"] = tuple(restore["argv"])
    return Wish(
        name=entry["name"],
        priority=entry["priority"],
        depends_on=tuple(entry["depends_on"]),
        group=entry["group"],
        policy=entry["policy"],
        save=save,
        restore=restore,
        ready_check=entry["ready_check"],
    )


def _given(options: t.Mapping[str, t.Any], *names: str) -> dict[str, t.Any]:
    return {name: options[name] for name in names if options[name] is not None}


def _require_absolute(options: t.Mapping[str, t.Any], *names: str) -> None:
    for name in names:
        path = options[name]
        if path is not None and not os.path.isabs(path):
            raise Refused(f"Option {name} must be an absolute path on the host: {path!r}.")


def require_time(option: str, text: str) -> datetime.datetime:
    """A moment of ISO 8601 with its offset. Raises `Refused`."""
    try:
        # Python up to 3.10 knows no Z.
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Refused(
            f"{option} must be a time in ISO 8601 with its offset, as 2026-11-24T04:00:00+01:00, "
            f"not {text!r}."
        )
    return moment
