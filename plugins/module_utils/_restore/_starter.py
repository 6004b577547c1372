# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The QEMU that a restore starts: from given words, as it was recorded, or through its unit."""

from __future__ import annotations

import os

from .._errors import Refused
from .._image_record import SavedImage
from .._qemu._launch import LaunchedQemu, launch, wait_for_monitor
from .._qemu._monitor import Monitor
from .._qemu._object_properties import refuse_old_qemu
from .._qemu._process import ProcessIdentity
from .._qemu._systemd import UnitQemu, settle, start_with
from .._qemu._systemd_drop_in import drop_in_path
from .._qemu._systemd_unit import Unit, own_unit
from .._uninterrupted import finished_first
from ._checks import Check, look_at_image, look_at_launch, refuse_problems
from ._launching import Launch, choose_launch, choose_unit
from ._lazy_checks import look_at_mapping
from ._load import RestoreSession
from ._request import RestoreRequest


class Starter:
    """``checks``: what was asked before the start; ``launched``: the QEMU, while this run watches
    it; ``ended``: it was started, and ended by this run."""

    def __init__(self, session: RestoreSession, request: RestoreRequest, qmp_socket: str) -> None:
        self._session = session
        self._request = request
        self._qmp_socket = qmp_socket
        self.launch: Launch | None = None
        self.launched: LaunchedQemu | UnitQemu | None = None
        self.checks: list[Check] = []
        self.ended = False

    @property
    def _image(self) -> SavedImage:
        return self._session.image

    async def prepare(self, *, may_be_unknown: bool, replaces: bool = False) -> None:
        """Choose what to start, and refuse what must not be. Raises `Refused`.

        ``may_be_unknown``: nothing is started now, so that nothing need tell how; ``replaces``: a
        QEMU that will have been ended by then still has the addresses.
        """
        self.launch = choose_launch(self._image, self._request, self._qmp_socket)
        started: list[Check] = []
        if self.launch is not None:
            started = look_at_launch(
                self._image, self._request, self._session.fd, self.launch, replaces=replaces
            )
            if started[0].problems:  # not trusted: its disks are not looked at either
                refuse_problems(self._request.path, started[:1])
        self.checks = look_at_image(self._image, self._request, None) + started
        if self.launch is not None and self.launch.mapped:
            self.checks += look_at_mapping(
                self._request, self._session.fd, self._session.structure, self.launch
            )
        refuse_problems(self._request.path, self.checks)
        if self.launch is not None and self.launch.mapped:
            await refuse_old_qemu(self.launch.argv[0])
        if self.launch is None and not may_be_unknown:
            raise Refused(
                f"Nothing listens on {self._qmp_socket}, and the image {self._request.path} does "
                "not tell how its QEMU was run: it was not written by this collection, virsh "
                "save-image-define wiped its record, or the save could not see the process. Start "
                "a QEMU there with -incoming defer -S, or give argv and this module starts it."
            )

    def look_again(self, waiting: ProcessIdentity | None, mapping: Launch | None) -> None:
        """Ask of a QEMU that waits already what is asked before a start. Raises `Refused`.

        ``mapping``: how it was started, where that maps its RAM from the image.
        """
        self.checks = look_at_image(self._image, self._request, waiting)
        if mapping is not None:
            self.checks += look_at_mapping(
                self._request, self._session.fd, self._session.structure, mapping
            )
        refuse_problems(self._request.path, self.checks)

    async def start(self) -> Monitor:
        """Start it and connect to its monitor. `prepare` came first."""
        if self.launch is None:
            raise AssertionError("nothing was prepared")
        self._session.step = "starting QEMU"
        self.launched = await finished_first(self._begin(self.launch))
        self._session.actions += [
            f"started QEMU (pid {self.launched.pid})",
            *self.launch.changes,
            *self.launched.notes,
        ]
        return await wait_for_monitor(self.launched, self._qmp_socket, self._session.deadline)

    async def _begin(self, chosen: Launch) -> LaunchedQemu | UnitQemu:
        unit = self.unit
        if unit is None:
            return await launch(chosen.argv, chosen.surroundings)
        return await start_with(unit, chosen.argv, self._session.deadline)

    @property
    def unit(self) -> Unit | None:
        """The unit that runs the guest, if one is to."""
        name = choose_unit(self._image, self._request)
        return own_unit(name, os.geteuid()) if name is not None else None

    async def settle(self, process: ProcessIdentity | None) -> bool:
        """Give the unit of the guest its own settings back, where a start with others left them;
        False when there was nothing to do."""
        unit = self.unit
        if unit is None or process is None or not os.path.exists(drop_in_path(unit)):
            return False
        self._session.step = f"giving {unit} its own settings back"
        await settle(unit, process.pid)
        self._session.actions.append(f"gave {unit} its own settings back")
        return True

    async def end(self) -> None:
        """End it. Its vCPUs never ran."""
        if self.launched is not None:
            await self.launched.end()
            self.ended = True
            self._session.actions.append("ended the QEMU that was started")

    async def let_go(self) -> None:
        """Stop watching it."""
        if self.launched is not None:
            await self.launched.let_go()
