# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""High-availability agents: which are known, and what their own files say; pure functions.

None of them is ever switched off here: they act for a whole cluster, and an operator who takes a
guest out of one knows how. Managers on other hosts (OpenNebula, oVirt, a Nova scheduler) leave
nothing to see here that is surely theirs.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from xml.etree import ElementTree

from ._competing_values import HA_AGENT, SeenAgent, Starter

_TRUE = ("true", "on", "yes", "y", "1")  # pacemaker's crm_is_true()


@dataclass(frozen=True)
class Agent:
    """``processes``: one of these names means that it runs (/proc/PID/comm, so 15 characters)."""

    name: str
    processes: tuple[str, ...]
    does: str
    advice: str


PACEMAKER = Agent(
    "Pacemaker",
    ("pacemakerd",),
    "starts guests that it manages again, here or on another host, as soon as it finds them ended",
    "Run `pcs property set maintenance-mode=true` (or `crm configure property "
    "maintenance-mode=true`), and false again after the resume.",
)
PROXMOX = Agent(
    "Proxmox VE HA",
    ("pve-ha-lrm", "pve-ha-crm"),
    "starts guests that are its resources again, here or on another host, as soon as it finds them "
    "ended",
    "Run `ha-manager set vm:ID --state ignored` for each, and `--state started` after the resume.",
)
GANETI = Agent(
    "Ganeti",
    ("ganeti-noded",),
    "has a watcher that every few minutes starts instances which it finds down",
    "Run `gnt-cluster watcher pause DURATION` on the master, long enough for the resume, and "
    "`gnt-cluster watcher continue` after it.",
)
AGENTS = (
    PACEMAKER,
    PROXMOX,
    GANETI,
    Agent(
        "rgmanager",
        ("rgmanager", "clurgmgrd"),
        "starts guests that are its services again, here or on another host, as soon as it finds "
        "them ended",
        "Run `clusvcadm -Z vm:NAME` for each, and `clusvcadm -U vm:NAME` after the resume.",
    ),
    Agent(
        "OpenStack Nova",
        ("nova-compute",),
        "takes a guest that ended for one that was shut down, stops it when it runs again, and "
        "with resume_guests_state_on_host_boot starts guests when the host comes up",
        "Stop and disable the service nova-compute until after the resume.",
    ),
)


def running(process_names: t.Collection[str]) -> list[Agent]:
    """Those of which a process of these runs."""
    return [agent for agent in AGENTS if not set(agent.processes).isdisjoint(process_names)]


def agent(seen: SeenAgent) -> Starter:
    """The decision: it blocks unless it is known to manage no guest, or to leave them alone."""
    known = next(one for one in AGENTS if one.name == seen.name)
    if seen.manages is False:
        what, advice = f"{seen.name} runs here and manages no guest.", "Nothing."
    elif seen.calm is not None:
        what = f"{seen.name} {known.does}; not now: {seen.calm}."
        advice = "Leave it so until after the resume."
    else:
        what, advice = f"{seen.name} {known.does}.", known.advice
    blocks = seen.manages is not False and seen.calm is None
    return Starter(HA_AGENT, seen.name, what, (), blocks, False, advice)


def pacemaker(cib: str | None, node: str, guest_units: t.Collection[str]) -> SeenAgent:
    """From the cluster's configuration, as `cibadmin --query` prints it; None when it did not.

    ``node``: this host's name; ``guest_units``: the systemd units that run guests, which may be
    resources too. Attributes that hold only by a rule, such as for some hours, do not count.
    """
    root = _xml(cib)
    if root is None:
        return SeenAgent(PACEMAKER.name, None, None)
    # A primitive may have its type from a template.
    resources = (one for tag in ("primitive", "template") for one in root.iter(tag))
    guests = [one for one in resources if _is_guest(one, guest_units)]
    if not guests:
        return SeenAgent(PACEMAKER.name, False, None)
    here = [one for one in root.iter("node") if _same_host(one.get("uname", ""), node)]
    calm = None
    if _are(root.findall("configuration/crm_config"), "maintenance-mode", True):
        calm = "the cluster is in maintenance mode"
    elif _are(here, "maintenance", True):
        calm = "this node is in maintenance mode"
    elif _are(here, "standby", True):
        calm = "this node is in standby"
    elif all(
        _are([one], "is-managed", False) or _are([one], "maintenance", True) for one in guests
    ):
        calm = "its guests are unmanaged"
    return SeenAgent(PACEMAKER.name, True, calm)


def _xml(text: str | None) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(text) if text else None
    except ElementTree.ParseError:
        return None


def _is_guest(primitive: ElementTree.Element, guest_units: t.Collection[str]) -> bool:
    kind = primitive.get("type", "")
    if primitive.get("class") == "systemd":
        return kind in guest_units or f"{kind}.service" in guest_units
    return kind == "VirtualDomain"


def _are(elements: t.Iterable[ElementTree.Element], name: str, wanted: bool) -> bool:
    """Whether the attribute is set, to this alone, and never by a rule."""
    found = set()
    for holder in (holder for element in elements for holder in element):
        for pair in holder.findall("nvpair"):
            if pair.get("name") == name:
                ruled = holder.find("rule") is not None
                found.add(None if ruled else pair.get("value", "").lower() in _TRUE)
    return found == {wanted}


def _same_host(one: str, other: str) -> bool:
    return one == other or one.split(".")[0] == other.split(".")[0]


def proxmox(resources: str | None, lrm_status: str | None) -> SeenAgent:
    """From /etc/pve/ha/resources.cfg, "" when there is none, and this node's lrm_status; None for
    what cannot be read. A section begins with ``vm: ID``; its options are indented."""
    if resources is None:
        return SeenAgent(PROXMOX.name, None, None)
    states: list[str] = []
    in_guest = False
    for line in resources.splitlines():
        if line[:1].strip():
            in_guest = line.startswith("vm:")
            states += ["started"] if in_guest else []
        elif in_guest and line.split()[:1] == ["state"]:
            states[-1] = " ".join(line.split()[1:])
    if not any(state != "ignored" for state in states):
        return SeenAgent(PROXMOX.name, False, None)
    calm = "this node is in maintenance mode" if _lrm_mode(lrm_status) == "maintenance" else None
    return SeenAgent(PROXMOX.name, True, calm)


def _lrm_mode(text: str | None) -> object:
    try:
        status = json.loads(text or "null")
    except ValueError:
        return None
    return status.get("mode") if isinstance(status, dict) else None


def ganeti(pause: str | None, now: float) -> SeenAgent:
    """From its watcher.pause, which holds a time in seconds since the epoch; None when there is
    none. ``now``: likewise."""
    try:
        paused = float(pause or "") > now
    except ValueError:
        paused = False
    return SeenAgent(GANETI.name, True, "its watcher is paused" if paused else None)
