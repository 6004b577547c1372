# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The block graph: what hangs on a guest's disks that would not survive its QEMU.

An image holds RAM and devices; disks stay where they are. What lives only in the process (a block
job, an export, a bitmap, an unlinked file) ends with it. Source: QEMU qapi/block-core.json and
qapi/block-export.json of 10.0.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

LOSE_BITMAPS = "lose_bitmaps"
_ENDED_JOB_STATUSES = ("concluded", "null")


@dataclass(frozen=True)
class Bitmap:
    """A dirty bitmap that a user made. ``busy``: a job or an export uses it now."""

    name: str
    persistent: bool
    busy: bool


@dataclass(frozen=True)
class BlockNode:
    """One node. ``filename`` is as QEMU gives it: relative to QEMU's working directory, or a
    json: or network address; ``backing_filename`` is None without a backing file."""

    node_name: str
    driver: str
    filename: str
    read_only: bool
    backing_filename: str | None
    bitmaps: tuple[Bitmap, ...]


@dataclass(frozen=True)
class Problem:
    """Why a guest's disks forbid a save. ``overridable``: by naming ``code`` in allow."""

    code: str
    message: str
    overridable: bool


def parse_block_nodes(
    query_named_block_nodes: t.Sequence[t.Mapping[str, t.Any]],
) -> tuple[BlockNode, ...]:
    """Read the reply of query-named-block-nodes (flat or not), in QEMU's order.

    Bitmaps without a name are left out: QEMU makes them for its own jobs.
    """
    return tuple(
        BlockNode(
            node_name=node.get("node-name", ""),
            driver=node["drv"],
            filename=node["file"],
            read_only=node["ro"],
            backing_filename=node.get("backing_file"),
            bitmaps=tuple(
                Bitmap(bitmap["name"], bitmap["persistent"], bitmap["busy"])
                for bitmap in node.get("dirty-bitmaps", ())
                if bitmap.get("name")
            ),
        )
        for node in query_named_block_nodes
    )


def block_problems(
    nodes: t.Sequence[BlockNode],
    jobs: t.Sequence[t.Mapping[str, t.Any]],
    exports: t.Sequence[t.Mapping[str, t.Any]],
    missing_files: frozenset[str],
    allow: frozenset[str],
) -> tuple[Problem, ...]:
    """Everything about the disks that speaks against a save.

    ``jobs`` and ``exports`` are the replies of query-block-jobs and query-block-exports;
    ``missing_files`` are the filenames of nodes that do not exist (any more). A problem that
    ``allow`` names is still returned, worded as the consequence that was accepted.
    """
    return (
        *_running_jobs(jobs),
        *_writable_exports(nodes, exports),
        *_missing_files(nodes, missing_files),
        *_lost_bitmaps(nodes, allow),
    )


def _running_jobs(jobs: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[Problem]:
    for job in jobs:
        if job.get("status") in _ENDED_JOB_STATUSES:
            continue
        name = job["device"]
        yield Problem(
            "block_job",
            f"the block job {name} ({job['type']}, {job['offset']} of {job['len']} bytes) has not "
            f"ended and would be lost with QEMU; wait for it or cancel it (block-job-cancel)",
            overridable=False,
        )


def _writable_exports(
    nodes: t.Sequence[BlockNode], exports: t.Sequence[t.Mapping[str, t.Any]]
) -> t.Iterator[Problem]:
    read_only = {node.node_name for node in nodes if node.read_only}
    for export in exports:
        if export["node-name"] in read_only:
            continue
        # The reply does not tell whether the export itself is read-only.
        yield Problem(
            "writable_export",
            f"the {export['type']} export {export['id']} of the writable node "
            f"{export['node-name']} may change the disk under the image, and QEMU does not tell "
            f"whether its clients can write; end it (block-export-del {export['id']})",
            overridable=False,
        )


def _missing_files(
    nodes: t.Sequence[BlockNode], missing_files: frozenset[str]
) -> t.Iterator[Problem]:
    writable = {node.filename: node for node in nodes if not node.read_only}
    for filename, node in writable.items():
        if filename in missing_files:
            yield Problem(
                "missing_file",
                f"the file {filename} of the writable node {node.node_name} no longer exists (an "
                "overlay of -snapshot, or deleted or replaced while open), so what the guest wrote "
                "would be lost with QEMU; copy it into a lasting file first (blockdev-mirror)",
                overridable=False,
            )


def _lost_bitmaps(nodes: t.Sequence[BlockNode], allow: frozenset[str]) -> t.Iterator[Problem]:
    for node in nodes:
        lost = [bitmap.name for bitmap in node.bitmaps if not bitmap.persistent]
        if not lost:
            continue
        names = f"the dirty bitmaps {', '.join(lost)} of node {node.node_name} ({node.filename})"
        if LOSE_BITMAPS in allow:
            message = f"{names} are not persistent and are lost with QEMU, as allowed"
        else:
            message = (
                f"{names} are not persistent and would be lost with QEMU, and the next backup "
                f"would have to be a full one; allow {LOSE_BITMAPS} to accept that"
            )
        yield Problem(LOSE_BITMAPS, message, overridable=True)
