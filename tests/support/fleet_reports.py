# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of fleets that never were, made by the collection's own plan and report from what
playbooks would have kept."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_forecast import foresee
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_knobs import read_knobs
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_plan import (
    HostLook,
    make_fleet_plan,
)
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_report import make_report
from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_run import HostRun

BEGAN = 1_795_831_200.0  # 2026-11-28T02:00:00Z
MIB = 1 << 20
Fact = dict[str, Any]


def knobs(**given: Any) -> Fact:
    return read_knobs(given, "/srv/fleet").as_dict()


def planned_guest(name: str, seconds: float | None = 3.0, **about: Any) -> Fact:
    """As a host module's plan has it."""
    return {
        "name": name,
        "uuid": None,
        "action": "save",
        "reason": "it is running",
        "at_most_bytes": 1024 * MIB,
        "predicted_seconds": seconds,
        **about,
    }


def look(host: str, *guests: Fact, skew_seconds: float = 0.1, **about: Any) -> Fact:
    """As a playbook keeps it of a host that answers, at once."""
    seconds = [guest["predicted_seconds"] for guest in guests]
    known = None if None in seconds else sum(seconds)
    plan = {"predicted_seconds": known, "guests": list(guests)}
    clock = {"asked": BEGAN, "told": BEGAN + skew_seconds, "answered": BEGAN}
    return {"host": host, "result": {"plan": plan}, "clock": clock, **about}


def told_guest(name: str, began: float | None, seconds: float | None, **about: Any) -> Fact:
    """As a host module returns it: its turn came ``began`` seconds after the run's beginning."""
    return {
        "name": name,
        "uuid": None,
        "action": "save",
        "reason": "it is running",
        "state": "verified",
        "guest_state": "stopped",
        "error": None,
        "bytes": None,
        "predicted_seconds": None,
        "began_seconds": began,
        "actual_seconds": seconds,
        "stopped_seconds": None,
        "clock": None,
        **about,
    }


def turn(began: float, ended: float, *guests: Fact, predicted: float | None = None) -> Fact:
    """One run of a host module, ``began`` and ``ended`` in seconds after the playbook's start."""
    result = {"guests": list(guests), "plan": {"predicted_seconds": predicted}}
    return {"began": BEGAN + began, "ended": BEGAN + ended, "result": result}


def a_run(host: str, **fact: Any) -> Fact:
    """As a playbook keeps it of a host that was taken to its end."""
    return {"host": host, "taken": BEGAN + 8, "ended": BEGAN + 200, **fact}


def report_of(
    verb: str,
    looks: list[Fact],
    runs: list[Fact],
    seconds: float = 240.0,
    warnings: list[str] | None = None,
    **given: Any,
) -> Fact:
    """``given``: knobs; ``seconds``: that the playbook took."""
    read = knobs(**given)
    way = "suspend" if verb == "plan" else verb
    made = make_fleet_plan([HostLook.of(one) for one in looks], read["serial"], way)
    plan = made.as_dict()
    plan["forecast"] = None if verb == "resume" else foresee(plan, read, BEGAN, way).as_dict()
    plan["warnings"] += warnings or []
    return make_report(plan, [HostRun.of(run) for run in runs], read, verb, BEGAN, BEGAN + seconds)


def a_plan() -> Fact:
    """Two batches; one host cannot be reached, one has never been measured."""
    looks = [
        look("kvm01", planned_guest("web01", 14.0), planned_guest("db01", 61.0)),
        look("kvm02", planned_guest("web02", 12.0), planned_guest("db02", 44.0), skew_seconds=12.4),
        look("kvm03", planned_guest("web03", None)),
        {
            "host": "kvm04",
            "unreachable": True,
            "error": "Failed to connect to the host via ssh: connect to host kvm04 port 22: "
            "No route to host",
        },
    ]
    return report_of("plan", looks, [], 9.0, fleet_serial="2")


def a_suspend_with_failures(hostile: str = "<script>document.title='pwned'</script>") -> Fact:
    """A host of each sad state, and one that is done; ``hostile``: a guest's name and more."""
    looks = [
        look("kvm01", planned_guest("web01"), planned_guest("db01", 30.0)),
        look("kvm02", planned_guest(hostile), planned_guest("db02", 28.0)),
        {"host": "kvm03", "unreachable": True, "error": f"ssh: no route to host {hostile}"},
        {"host": "kvm04", "failed": True, "error": "/var/lib/vmfleet has 3 GiB left, 40 needed."},
        look("kvm05", planned_guest("x" * 300)),
        look("kvm06", planned_guest("web06")),
    ]
    full = f"{hostile} was not saved: the store is full. It runs on. {'/a/very/long/path' * 20}"
    runs = [
        a_run(
            "kvm01",
            suspended=[
                turn(
                    10,
                    48,
                    told_guest(
                        "web01",
                        0.4,
                        3.6,
                        bytes=412 * MIB,
                        predicted_seconds=3.0,
                        stopped_seconds=2.9,
                    ),
                    told_guest(
                        "db01",
                        4.1,
                        33.0,
                        bytes=7100 * MIB,
                        predicted_seconds=30.0,
                        stopped_seconds=31.2,
                    ),
                    predicted=33.0,
                )
            ],
        ),
        a_run(
            "kvm02",
            error=f"1 of 2 guests are suspended. {full}",
            suspended=[
                turn(
                    10,
                    41,
                    told_guest(
                        hostile,
                        0.3,
                        2.2,
                        state="failed",
                        guest_state="running",
                        error=full,
                        predicted_seconds=3.0,
                    ),
                    told_guest(
                        "db02",
                        2.6,
                        27.0,
                        bytes=6900 * MIB,
                        predicted_seconds=28.0,
                        stopped_seconds=26.1,
                    ),
                    predicted=31.0,
                )
            ],
        ),
        {"host": "kvm05", "left_out": "not begun: it needs 3 s, and 0 s of the window are left"},
        {"host": "kvm06", "taken": BEGAN + 8},
    ]
    return report_of("suspend", looks, runs, 60.0, fleet_guests="web*,db*,!*-test")


def a_window() -> Fact:
    """Three hosts with three guests each, one after the other; one guest's clock was put right."""
    looks, runs = [], []
    for number in (1, 2, 3):
        host, begins = f"kvm0{number}", 12.0 + 420 * (number - 1)
        names = [(f"web0{number}", 9.0), (f"app0{number}", 21.0), (f"db0{number}", 64.0)]
        looks.append(look(host, *(planned_guest(*one) for one in names)))
        looks[-1]["skew_seconds"] = 7.2 if number == 2 else 0.1
        down, up, clock = [], [], 0.6
        for place, (name, seconds) in enumerate(names):
            took = round(seconds * (1.06, 0.93, 1.21)[(number + place) % 3], 1)
            size = round(seconds * 118) * MIB
            down.append(
                told_guest(
                    name,
                    clock,
                    took,
                    bytes=size,
                    predicted_seconds=seconds,
                    stopped_seconds=round(took * 0.94, 2),
                )
            )
            up.append(
                told_guest(
                    name,
                    clock * 0.8,
                    round(took * 0.8, 1),
                    action="restore",
                    state="running",
                    guest_state="running",
                    bytes=size,
                    predicted_seconds=round(seconds * 0.8, 1),
                    clock={"skew_seconds_after": 0.02} if place == 2 else None,
                )
            )
            clock += took + 0.3
        maintained = {"began": BEGAN + begins + 118, "ended": BEGAN + begins + 302}
        runs.append(
            a_run(
                host,
                taken=BEGAN + begins,
                ended=BEGAN + begins + 412,
                suspended=[turn(begins + 1, begins + 1 + clock + 1, *down, predicted=94.0)],
                maintained=maintained,
                resumed=[turn(begins + 306, begins + 306 + clock * 0.8 + 1, *up, predicted=75.2)],
            )
        )
    return report_of(
        "window",
        looks,
        runs,
        1290.0,
        fleet_serial="1",
        window_start="2026-11-28T02:00:00Z",
        window_end="2026-11-28T04:00:00Z",
        reserve_seconds="900",
        protected_guests="ansible-controller",
    )


def a_large_suspend(hosts: int = 200, guests: int = 20) -> Fact:
    """All is well but one host."""
    looks, runs = [], []
    for number in range(hosts):
        names = [f"guest{number:03}-{one:02}" for one in range(guests)]
        looks.append(look(f"kvm{number:03}", *(planned_guest(name) for name in names)))
        told = [
            told_guest(
                name, 3.0 * one, 2.9, bytes=800 * MIB, predicted_seconds=3.0, stopped_seconds=2.7
            )
            for one, name in enumerate(names)
        ]
        run = a_run(f"kvm{number:03}", suspended=[turn(10, 71, *told, predicted=60.0)])
        runs.append({**run, "error": "the store is full"} if number == 117 else run)
    return report_of("suspend", looks, runs)
