# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The block graph: samples are replies of QEMU 10.0.2, shortened to the keys that matter."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._block_graph import (
    Bitmap,
    BlockNode,
    block_problems,
    parse_block_nodes,
)

NOTHING: frozenset[str] = frozenset()


def bitmap(name: str | None, *, persistent: bool = True, busy: bool = False) -> dict[str, t.Any]:
    named = {} if name is None else {"name": name}
    return {
        **named,
        "recording": True,
        "persistent": persistent,
        "busy": busy,
        "granularity": 65536,
        "count": 0,
    }


# qcow2 with a backing file and two bitmaps, and an overlay that -snapshot made.
OVERLAY_JSON = (
    'json:{"backing": {"driver": "raw", "file": {"driver": "file", "filename": "snap.raw"}}, '
    '"driver": "qcow2", "file": {"driver": "file", "filename": "/var/tmp/vl.DIPLZ3"}}'
)
REPLY: list[dict[str, t.Any]] = [
    {
        "node-name": "#block1066",
        "drv": "qcow2",
        "file": OVERLAY_JSON,
        "ro": False,
        "backing_file": "snap.raw",
        "backing_file_depth": 0,
        "active": True,
    },
    {
        "node-name": "#block981",
        "drv": "file",
        "file": "/var/tmp/vl.DIPLZ3",
        "ro": False,
        "backing_file_depth": 0,
        "active": True,
    },
    {
        "node-name": "#block440",
        "drv": "file",
        "file": "snap.raw",
        "ro": True,
        "backing_file_depth": 0,
        "active": True,
    },
    {
        "node-name": "#block172",
        "drv": "qcow2",
        "file": "top.qcow2",
        "ro": False,
        "backing_file": "base.qcow2",
        "backing_file_depth": 0,
        "active": True,
        "dirty-bitmaps": [bitmap("keep"), bitmap("transient", persistent=False, busy=True)],
    },
    {
        "node-name": "#block042",
        "drv": "file",
        "file": "top.qcow2",
        "ro": False,
        "backing_file_depth": 0,
        "active": True,
    },
]
BACKUP_JOB = {
    "auto-finalize": True,
    "io-status": "ok",
    "device": "b0",
    "auto-dismiss": True,
    "busy": False,
    "len": 16777216,
    "offset": 1048576,
    "status": "running",
    "paused": False,
    "speed": 1,
    "ready": False,
    "type": "backup",
}
NBD_EXPORT = {"node-name": "#block172", "shutting-down": False, "type": "nbd", "id": "e0"}


def node(**changes: t.Any) -> BlockNode:
    values = {
        "node_name": "disk",
        "driver": "qcow2",
        "filename": "/d.qcow2",
        "read_only": False,
        "backing_filename": None,
        "bitmaps": (),
    }
    return BlockNode(**{**values, **changes})


def codes(nodes: t.Sequence[BlockNode], **seen: t.Any) -> list[str]:
    observed = {"jobs": [], "exports": [], "missing_files": NOTHING, "allow": NOTHING, **seen}
    return [problem.code for problem in block_problems(nodes, **observed)]


def test_parses_files_backing_files_and_bitmaps() -> None:
    overlay, _file, _base, top, protocol = parse_block_nodes(REPLY)
    assert overlay == BlockNode("#block1066", "qcow2", OVERLAY_JSON, False, "snap.raw", ())
    assert top.bitmaps == (
        Bitmap("keep", persistent=True, busy=False),
        Bitmap("transient", persistent=False, busy=True),
    )
    assert protocol == BlockNode("#block042", "file", "top.qcow2", False, None, ())


def test_bitmaps_that_qemu_made_for_its_own_jobs_are_left_out() -> None:
    reply = {
        "node-name": "#block1531",
        "drv": "copy-before-write",
        "file": "top.qcow2",
        "ro": False,
        "dirty-bitmaps": [bitmap(None, persistent=False)],
    }
    assert parse_block_nodes([reply])[0].bitmaps == ()


def test_a_guest_with_plain_disks_has_no_problems() -> None:
    assert codes([node(), node(read_only=True), node(bitmaps=(Bitmap("b", True, False),))]) == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("running", ["block_job"]),
        ("paused", ["block_job"]),
        ("ready", ["block_job"]),
        ("pending", ["block_job"]),
        ("concluded", []),
        ("null", []),
    ],
)
def test_a_block_job_that_has_not_ended_forbids_a_save(status: str, expected: list[str]) -> None:
    assert codes([node()], jobs=[{**BACKUP_JOB, "status": status}]) == expected


def test_the_message_on_a_job_names_it_and_how_far_it_is() -> None:
    (problem,) = block_problems([], [BACKUP_JOB], [], NOTHING, NOTHING)
    assert "b0 (backup, 1048576 of 16777216 bytes)" in problem.message
    assert not problem.overridable


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node(node_name="#block172")], ["writable_export"]),
        ([node(node_name="#block172", read_only=True)], []),
        ([], ["writable_export"]),
    ],
    ids=["writable node", "read-only node", "unknown node"],
)
def test_an_export_is_fine_only_on_a_read_only_node(
    nodes: list[BlockNode], expected: list[str]
) -> None:
    assert codes(nodes, exports=[NBD_EXPORT]) == expected


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({"/var/tmp/vl.DIPLZ3"}, ["missing_file"]),  # the overlay's file is unlinked at once
        ({"top.qcow2"}, ["missing_file"]),  # reported once for both of its nodes
        ({"snap.raw"}, []),  # only read
        ({"elsewhere"}, []),
    ],
)
def test_a_missing_file_behind_a_writable_node_forbids_a_save(
    missing: set[str], expected: list[str]
) -> None:
    nodes = [n for n in parse_block_nodes(REPLY) if "transient" not in str(n.bitmaps)]
    assert codes(nodes, missing_files=frozenset(missing)) == expected


def test_bitmaps_that_would_be_lost_can_be_allowed_by_name() -> None:
    nodes = parse_block_nodes(REPLY)
    (refused,) = block_problems(nodes, [], [], NOTHING, NOTHING)
    (accepted,) = block_problems(nodes, [], [], NOTHING, frozenset({"lose_bitmaps"}))
    assert refused.code == accepted.code == "lose_bitmaps"
    assert refused.overridable
    assert "transient of node #block172" in refused.message
    assert "keep" not in refused.message
    assert "allow lose_bitmaps" in refused.message
    assert "as allowed" in accepted.message


def test_all_problems_are_told_at_once() -> None:
    found = codes(
        parse_block_nodes(REPLY),
        jobs=[BACKUP_JOB],
        exports=[NBD_EXPORT],
        missing_files=frozenset({"/var/tmp/vl.DIPLZ3"}),
    )
    assert found == ["block_job", "writable_export", "missing_file", "lose_bitmaps"]
