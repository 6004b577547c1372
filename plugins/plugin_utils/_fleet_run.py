# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What became of one host in a run of a fleet's playbook, from the one fact that it keeps."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._fleet_plan import number_of

LEFT_OUT, FAILED, LOST, DONE = "left_out", "failed", "lost", "done"


@dataclass(frozen=True)
class Turn:
    """One call of a host module, or of the operator's tasks. ``began`` and ``ended``: seconds since
    the epoch by the controller's clock; ``result``: what the module returned."""

    began: float
    ended: float
    result: t.Mapping[str, t.Any]


@dataclass(frozen=True)
class HostRun:
    """``left_out``: why the host was not taken; ``taken`` and ``ended``: when its batch began with
    it and was done with it, in seconds since the epoch; ``error`` and ``resume_error``: what failed
    on the way down, the operator's tasks included, and on the way up; ``comes_back``: whether what
    it suspends is to run again in the end."""

    host: str
    left_out: str | None = None
    taken: float | None = None
    ended: float | None = None
    error: str | None = None
    resume_error: str | None = None
    suspended: tuple[Turn, ...] = ()
    maintained: Turn | None = None
    resumed: tuple[Turn, ...] = ()
    comes_back: bool = False

    @classmethod
    def of(cls, fact: t.Mapping[str, t.Any]) -> HostRun:
        """From ``fleet_run``, as the playbooks set it."""
        maintained = fact.get("maintained")
        return cls(
            host=str(fact["host"]),
            left_out=fact.get("left_out"),
            taken=number_of(fact.get("taken")),
            ended=number_of(fact.get("ended")),
            error=fact.get("error"),
            resume_error=fact.get("resume_error"),
            suspended=tuple(_turn(one) for one in fact.get("suspended") or ()),
            maintained=_turn(maintained) if maintained else None,
            resumed=tuple(_turn(one) for one in fact.get("resumed") or ()),
            comes_back=bool(fact.get("comes_back")),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of guests that were suspended to come back, and of which nobody said that they are
        back: a resume that looks into another journal finds nothing to do, and fails nothing."""
        if not self.comes_back or self.resume_error is not None:
            return ()
        down = _told(self.suspended, ("saved", "verified"))
        return tuple(name for name in down if name not in _told(self.resumed, ("running",)))

    @property
    def state(self) -> str:
        """``lost``: it was taken and the play never came to its end there."""
        if self.ended is None and self.left_out is None:
            return LOST
        if self.error is not None or self.resume_error is not None or self.missing:
            return FAILED
        return LEFT_OUT if self.left_out is not None else DONE

    @property
    def complaint(self) -> str | None:
        """Everything that is to be said against it, None for a host that is done."""
        if self.state == LOST:
            return (
                "it became unreachable under the operator's tasks, or one of them ended the play "
                "there. Its guests are suspended: resume_fleet brings them back once it answers, "
                "and where the role vm_resume was applied the host does when it boots"
            )
        missing = self.missing
        told = [
            self.left_out,
            self.error,
            self.resume_error,
            f"nothing told that {', '.join(missing)} came back. Do vm_suspend_store and "
            "vm_suspend_journal name what vm_resume_store and vm_resume_journal name, and is it "
            "mounted"
            if missing
            else None,
        ]
        return ". ".join(one.rstrip(".") for one in told if one is not None) or None

    @property
    def seconds(self) -> float | None:
        """How long its batch had it; None for a host that was not taken to its end."""
        if self.taken is None or self.ended is None:
            return None
        return self.ended - self.taken


def _turn(told: t.Mapping[str, t.Any]) -> Turn:
    return Turn(float(told["began"]), float(told["ended"]), told.get("result") or {})


def _told(turns: t.Iterable[Turn], states: t.Collection[str]) -> dict[str, None]:
    """Names of guests that were told to be in one of these states, in order."""
    return {
        guest["name"]: None
        for turn in turns
        for guest in turn.result.get("guests") or ()
        if guest.get("state") in states
    }
