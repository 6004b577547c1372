# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Finishing or undoing a restore that died, in the QEMU that it left."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import MigrationFailed, MonitorError
from .._pipeline import decode_and_verify
from .._qemu._bookmark import RESTORE, Found, find_bookmarks
from .._qemu._exit import wait_for_exit
from .._qemu._fdset import take_back
from .._qemu._guest import Guest, observe
from .._qemu._migration import Migration
from .._qemu._monitor import Monitor, MonitorLost
from .._qemu._negotiation import put_back_everything
from .._qemu._process import runs_with
from .._saveimage._compressors import compressor_of
from ._load import RestoreSession, apply, note_loaded, return_image
from ._recovery import Remedy, decide

_QUIT_SECONDS = 60.0


class Recovery:
    """What a dead restore left in one QEMU. ``argv``: what this run would start, None without."""

    def __init__(
        self, session: RestoreSession, monitor: Monitor, argv: t.Sequence[str] | None
    ) -> None:
        self._session = session
        self._monitor = monitor
        self._argv = argv
        self.recovers: dict[str, str] | None = None

    async def foresee(self, guest: Guest) -> Remedy:
        """The remedy that is due, without applying it. Raises `Refused` as `decide`."""
        found = await self._found()
        remedy = decide(
            guest.run_state,
            guest.migration_status,
            found.bookmark if found is not None else None,
            os.fstat(self._session.fd).st_ino,
            started_by_us=self._argv is not None and runs_with(guest.process, self._argv),
        )
        if remedy is not Remedy.NOTHING:
            path = found.bookmark.path if found is not None else self._session.image.path
            self.recovers = {"path": path, "remedy": remedy.value, "reason": _REASONS[remedy]}
        return remedy

    async def run(self, guest: Guest) -> Guest | None:
        """Apply every remedy; the guest as it is then, None when its QEMU was ended.

        Raises `MonitorError`, and what reading the image raises; the image is as it was then.
        """
        while True:
            self._session.step = "looking for what a run that died left in QEMU"
            remedy = await self.foresee(guest)
            if remedy is Remedy.NOTHING:
                return guest
            self._session.actions.append(
                f"found a restore left by a run that died: {_REASONS[remedy]}"
            )
            if remedy is Remedy.END:
                await self._end(guest)
                return None
            if remedy is Remedy.WAIT:
                await self._wait(guest)
            else:
                await self._tidy(guest, loaded=remedy is Remedy.FINISH)
            guest = await observe(self._monitor, incoming=True)

    async def _found(self) -> Found | None:
        for found in await find_bookmarks(self._monitor):
            if found.bookmark.doing == RESTORE:
                return found
        return None

    async def _wait(self, guest: Guest) -> None:
        self._session.step = "waiting for the load that the run that died began"
        with contextlib.suppress(MigrationFailed):  # seen by the next look
            await Migration(self._monitor, guest.process).join(self._session.deadline)

    async def _tidy(self, guest: Guest, *, loaded: bool) -> None:
        found = await self._found()
        if found is None:
            return
        if loaded:
            self._session.load_began = True
            self._session.guest_state = guest.run_state
            await self._check_stream()
        self._session.step = "putting QEMU's migration settings back"
        before = found.bookmark.before.offer(guest.offer)
        await apply(self._monitor, put_back_everything(before))
        if loaded:
            note_loaded(self._session, guest)
        await take_back(self._monitor, found.fdset_id)
        return_image(self._session, guest)
        self._session.actions.append("put migration capabilities and parameters back")

    async def _check_stream(self) -> None:
        """Nobody saw whether the dead run's decompressor was content, so it is asked again."""
        compressor = compressor_of(self._session.image.compressor or "raw")
        if compressor is not None:
            self._session.step = "decoding the image once more"
            await decode_and_verify(self._session.fd, self._session.image.path, compressor)

    async def _end(self, guest: Guest) -> None:
        self._session.step = "ending the QEMU that the run that died started"
        with contextlib.suppress(MonitorLost):
            await self._monitor.execute("quit")
        if guest.process is not None and not await wait_for_exit(guest.process, _QUIT_SECONDS):
            raise MonitorError(
                f"The QEMU process {guest.process.pid} was still there {_QUIT_SECONDS:g} s after "
                "quit."
            )
        return_image(self._session, guest)
        self._session.actions.append("ended the QEMU of the run that died")


_REASONS = {
    Remedy.TIDY: "its QEMU was prepared, but nothing loaded",
    Remedy.WAIT: "its QEMU still loads",
    Remedy.FINISH: "its QEMU has loaded the guest",
    Remedy.END: "its QEMU failed to load",
}
