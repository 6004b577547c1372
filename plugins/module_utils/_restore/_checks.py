# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Everything about a restore that the image and this host can tell without a QEMU.

Check mode, the run and a rehearsal ask the same questions. Each has one answer: yes, unknown,
allowed (it is not so, and the operator accepted that), or a problem in words.
"""

from __future__ import annotations

import os
import shutil
import typing as t
from dataclasses import dataclass

from .._errors import Refused
from .._image_record import SavedImage
from .._qemu._addresses import silent, taken
from .._qemu._claims import claims_of, peers_of
from .._qemu._fence import changed_disks
from .._qemu._fingerprint import UNREADABLE
from .._qemu._fresh_ram import memory_files, used_reason
from .._qemu._process import ProcessIdentity, boot_id, host_id, is_alive
from .._qemu._setting import choose_setting
from .._qemu._surroundings import differing_namespaces, own_namespaces
from .._saveimage._trust import distrust
from ._launching import Launch
from ._request import RestoreRequest

YES = "yes"
UNKNOWN = "unknown"
ALLOWED = "allowed"
CHANGED_DISKS = "changed_disks"
OTHER_MACHINE = "other_machine"
_MAPPED_RAM = "mapped-ram"
_TRUSTED = "recorded_argv_trusted"


@dataclass(frozen=True)
class Check:
    """``problems``: why the restore is refused; ``warnings``: what was allowed all the same."""

    name: str
    answer: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def refuse_problems(path: str, checks: t.Sequence[Check]) -> None:
    """Raise `Refused` with every problem at once."""
    problems = [problem for check in checks for problem in check.problems]
    if problems:
        raise Refused(f"The image {path} cannot be restored now: " + " ".join(problems))


def check_source(
    saved: SavedImage,
    request: RestoreRequest,
    *,
    this_host: str,
    alive: t.Callable[[ProcessIdentity], bool],
    waiting: ProcessIdentity | None,
) -> Check:
    """Whether no other QEMU holds the guest. ``waiting``: the one that shall take it."""
    name = "source_gone"
    if saved.host is not None and saved.host != this_host:
        if OTHER_MACHINE not in request.allow:
            return Check(
                name,
                UNKNOWN,
                (
                    "It was saved on another host, where its QEMU may still hold the guest, and "
                    "this host cannot look. Make sure that it has ended there and that its disks "
                    f"are these, then allow {OTHER_MACHINE}.",
                ),
            )
        return Check(name, ALLOWED, warnings=("The image was saved on another host.",))
    if saved.saved_from is None:
        return Check(name, UNKNOWN)
    for holder, how in ((saved.saved_from, "saved from"), (saved.loaded_into, "loaded into")):
        if holder is not None and holder != waiting and alive(holder):
            return Check(
                name,
                UNKNOWN,
                (
                    f"The QEMU that it was {how}, process {holder.pid}, still lives and holds the "
                    "guest; two of it would corrupt its disks. End that one first (quit).",
                ),
            )
    return Check(name, YES)


def check_disks(saved: SavedImage, request: RestoreRequest, changed: t.Sequence[str]) -> Check:
    """Whether the guest's disks are as they were when it was saved."""
    name = "disks_unchanged"
    if saved.disks_boot_id is None:
        return Check(name, UNKNOWN)
    unseen = [disk.path for disk in saved.disks if disk.kind == UNREADABLE]
    if not changed and unseen:
        words = f"Whether these disks changed is not known: {', '.join(unseen)}."
        return Check(name, UNKNOWN, warnings=(words,))
    if not changed:
        return Check(name, YES)
    said = "; ".join(changed)
    if CHANGED_DISKS in request.allow:
        return Check(name, ALLOWED, warnings=(f"Disks changed since the save: {said}.",))
    return Check(
        name,
        UNKNOWN,
        (
            f"Its disks changed since it was saved: {said}. The guest's memory would meet disks "
            "that it does not know, and corrupt them. Bring them back as they were; where they "
            f"are the same in substance, allow {CHANGED_DISKS}.",
        ),
    )


def look_at_image(
    saved: SavedImage, request: RestoreRequest, waiting: ProcessIdentity | None
) -> list[Check]:
    """What is asked before every load."""
    return [
        check_source(saved, request, this_host=host_id(), alive=is_alive, waiting=waiting),
        _look_at_disks(saved, request),
    ]


def _look_at_disks(saved: SavedImage, request: RestoreRequest) -> Check:
    changed: t.Sequence[str] = ()
    if saved.disks_boot_id is not None:
        changed = changed_disks(saved.disks, same_boot=saved.disks_boot_id == boot_id())
    return check_disks(saved, request, changed)


def look_at_rehearsal(
    saved: SavedImage, request: RestoreRequest, fd: int, launch: Launch
) -> list[Check]:
    """What is asked before a rehearsal, which shares nothing with the guest's own QEMU."""
    return [
        _look_at_disks(saved, request),
        _check_launch_trust(request, fd, launch),
        _check_program(launch),
    ]


def look_at_launch(
    saved: SavedImage, request: RestoreRequest, fd: int, launch: Launch, *, replaces: bool
) -> list[Check]:
    """What is asked before a QEMU is started for it. ``fd``: the image, open; ``replaces``: the
    addresses are those of a QEMU that will be gone."""
    own, directory = launch.own_argv, launch.directory
    trust = _check_launch_trust(request, fd, launch)
    if trust.problems:
        return [trust]  # not even asked about: the words could name any file or host
    checks = [trust, _check_program(launch)]
    claimed = [
        f"{claim.option} needs {claim.where}, and {why}."
        for claim in (() if replaces else claims_of(own, directory))
        for why in [taken(claim)]
        if why is not None
    ]
    checks.append(_from_problems("addresses_free", claimed))
    absent = [
        f"{peer.option} is a client of {peer.where}, and {why}. Start that first."
        for peer in peers_of(own, directory)
        for why in [silent(peer)]
        if why is not None
    ]
    checks.append(_from_problems("servers_answer", absent))
    if saved.layout == _MAPPED_RAM and not request.reset_shared_memory:
        names = {name for name, _length in saved.ram_blocks}
        checks.append(_check_memory(memory_files(own, directory, names)))
    return checks


def _from_problems(name: str, problems: t.Sequence[str]) -> Check:
    return Check(name, UNKNOWN if problems else YES, tuple(problems))


def _check_launch_trust(request: RestoreRequest, fd: int, launch: Launch) -> Check:
    if not (launch.recorded or launch.unit_recorded):
        return Check(_TRUSTED, YES)
    return check_trust(request, fd)


def check_trust(request: RestoreRequest, fd: int) -> Check:
    """Whether the image may decide what is run or talked to. ``fd``: the image, open."""
    name = _TRUSTED
    why = distrust(fd, request.path, os.geteuid())
    if why is None:
        return Check(name, YES)
    if request.trust_recorded_argv:
        return Check(name, ALLOWED, warnings=(f"The recorded command line is trusted: {why}",))
    return Check(
        name,
        UNKNOWN,
        (
            "Its recorded command line, unit or monitor would be used, and somebody else could "
            "have written it: "
            f"{why} If you know that it is sound, set trust_recorded_argv.",
        ),
    )


def _check_program(launch: Launch) -> Check:
    name, program = "program_runs", launch.argv[0]
    problems: list[str] = []
    if shutil.which(program) is None:
        problems.append(
            f"The program {program} does not exist on this host or cannot be executed. Install "
            "QEMU (Debian: qemu-system-x86), or give argv."
        )
    if launch.surroundings is not None:
        problems += differing_namespaces(launch.surroundings.namespaces, own_namespaces())
    if launch.surroundings is not None and launch.systemd_unit is None:
        try:
            choose_setting(launch.surroundings)
        except Refused as exc:
            problems.append(exc.message)
    return _from_problems(name, problems)


def _check_memory(paths: t.Iterable[str]) -> Check:
    files = filter(os.path.exists, paths)  # QEMU makes what is missing
    used = [(path, used_reason(path)) for path in files]
    return _from_problems(
        "memory_empty",
        [
            f"The guest's RAM would lie in {path}, and {reason}; a mapped-ram load leaves that "
            "where the guest had zeros. Set reset_shared_memory to empty it, or remove it."
            for path, reason in used
            if reason is not None
        ],
    )
