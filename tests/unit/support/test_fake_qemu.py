# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model QEMU behaves like the real one where the collection depends on it."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.tests.support.fake_qemu import FakeQemu
from ansible_collections.vmfleet.suspend.tests.support.qmp_command import (
    Command,
    LinkBroken,
    QmpFailure,
    ReceivedFd,
)

URI = "file:/dev/fdset/0,offset=4096"


class Session:
    """Commands straight to the model; collects its events."""

    def __init__(self, qemu: FakeQemu) -> None:
        self.qemu = qemu
        self.events: list[str] = []

    def __call__(self, name: str, **arguments: object) -> t.Any:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.qemu.respond(Command(name, named), self._emit)

    def _emit(self, event: str, data: t.Mapping[str, t.Any]) -> None:
        self.events.append(f"{event} {data.get('status', '')}".strip())

    def give(self, *flags: int, path: Path) -> None:
        for flag in flags:
            received = ReceivedFd.of(os.open(path, flag | os.O_CREAT))
            fdset = {"fdset-id": 0} if self.qemu.fdsets else {}
            self.qemu.respond(Command("add-fd", fdset, (received,)), self._emit)

    def turn_on(self, *names: str) -> None:
        entries = [{"capability": name, "state": True} for name in names]
        self("migrate-set-capabilities", capabilities=entries)

    def statuses_until_the_end(self) -> list[str]:
        seen: list[str] = []
        while not seen or seen[-1] not in ("completed", "failed", "cancelled"):
            seen.append(self("query-migrate")["status"])
        return seen


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def test_a_save_passes_through_finish_migrate_to_postmigrate(image: Path) -> None:
    session = Session(FakeQemu())
    session.turn_on("events")
    session.give(os.O_WRONLY, path=image)
    session("stop")
    session("migrate", uri=URI)
    assert session.statuses_until_the_end() == ["active", "device", "completed"]
    with pytest.raises(QmpFailure, match="not finalized yet"):
        session("cont")
    states = [session("query-status")["status"] for _poll in range(3)]
    assert states == ["finish-migrate", "postmigrate", "postmigrate"]
    assert session.events == [
        "STOP",
        "MIGRATION setup",
        "MIGRATION active",
        "MIGRATION device",
        "MIGRATION completed",
    ]


@pytest.mark.parametrize("was_stopped", [True, False])
def test_a_failed_save_leaves_the_guest_as_it_was(image: Path, was_stopped: bool) -> None:
    session = Session(FakeQemu(ends_as="failed"))
    session.give(os.O_WRONLY, path=image)
    if was_stopped:
        session("stop")
    session("migrate", uri=URI)
    session.statuses_until_the_end()
    assert "No space left" in session("query-migrate")["error-desc"]
    assert session("query-status")["status"] == ("paused" if was_stopped else "running")


def test_a_save_that_never_ends_can_be_cancelled(image: Path) -> None:
    session = Session(FakeQemu(ends_as="never"))
    session.give(os.O_WRONLY, path=image)
    session("migrate", uri=URI)
    assert [session("query-migrate")["status"] for _poll in range(5)][-1] == "device"
    with pytest.raises(QmpFailure, match="in progress"):
        session.turn_on("events")
    session("migrate_cancel")
    assert session("query-migrate")["status"] == "cancelled"


def test_a_restore_ends_paused(image: Path) -> None:
    session = Session(FakeQemu(incoming=True))
    session.give(os.O_RDONLY, path=image)
    session("migrate-incoming", uri=URI)
    session.statuses_until_the_end()
    assert session("query-status")["status"] == "paused"


def test_a_second_incoming_migration_is_refused(image: Path) -> None:
    session = Session(FakeQemu(incoming=True))
    session.give(os.O_RDONLY, path=image)
    session("migrate-incoming", uri=URI)
    with pytest.raises(QmpFailure, match="already been started"):
        session("migrate-incoming", uri=URI)


def test_direct_io_without_an_o_direct_descriptor_kills_a_source(image: Path) -> None:
    session = Session(FakeQemu())
    session.turn_on("mapped-ram", "multifd")
    session("migrate-set-parameters", direct_io=True)
    session.give(os.O_WRONLY, path=image)
    with pytest.raises(LinkBroken):
        session("migrate", uri=URI)
    assert session.qemu.crashed


def test_direct_io_without_an_o_direct_descriptor_is_an_error_for_a_destination(
    image: Path,
) -> None:
    session = Session(FakeQemu(incoming=True))
    session.turn_on("mapped-ram", "multifd")
    session("migrate-set-parameters", direct_io=True)
    session.give(os.O_RDONLY, path=image)
    with pytest.raises(QmpFailure, match="matching flags=0x4000"):
        session("migrate-incoming", uri=URI)
    assert not session.qemu.crashed


@pytest.mark.parametrize(
    ("capabilities", "flags"),
    [
        (["mapped-ram", "multifd"], [os.O_WRONLY | os.O_DIRECT, os.O_WRONLY]),
        (["mapped-ram"], [os.O_WRONLY]),
        ([], [os.O_WRONLY]),
    ],
)
def test_direct_io_is_inert_or_satisfied(
    image: Path, capabilities: list[str], flags: list[int]
) -> None:
    written = []
    session = Session(FakeQemu(writer=lambda fd, offset: written.append(offset)))
    session.turn_on(*capabilities)
    session("migrate-set-parameters", direct_io=True)
    session.give(*flags, path=image)
    assert session("migrate", uri=URI) == {}
    assert written == [4096]


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_DIRECT])
def test_a_main_channel_without_a_fitting_descriptor_is_refused(image: Path, flags: int) -> None:
    session = Session(FakeQemu())
    session.give(flags, path=image)
    with pytest.raises(QmpFailure, match="matching flags=0x1"):
        session("migrate", uri=URI)
    assert session("query-status")["status"] == "running"


def test_a_removed_fdset_is_gone(image: Path) -> None:
    session = Session(FakeQemu())
    session.give(os.O_WRONLY, path=image)
    assert [entry["fdset-id"] for entry in session("query-fdsets")] == [0]
    session("remove-fd", fdset_id=0)
    assert session("query-fdsets") == []
    with pytest.raises(QmpFailure, match="not found"):
        session("remove-fd", fdset_id=0)


def test_quit_answers_and_ends_the_stand_in_process(tmp_path: Path) -> None:
    session = Session(FakeQemu())
    session.qemu.start_process(tmp_path)
    assert session.qemu.process is not None
    with pytest.raises(LinkBroken) as broken:
        session("quit")
    assert broken.value.answer == {}
    assert session.qemu.process.poll() is not None
