# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""High-availability agents: recognised by their processes, read from their own files."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_agents import (
    AGENTS,
    agent,
    ganeti,
    pacemaker,
    proxmox,
    running,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._host._competing_values import (
    SeenAgent,
)


@pytest.mark.parametrize(
    ("processes", "names"),
    [
        ({"systemd", "qemu-system-x86"}, []),
        ({"pacemakerd", "pacemaker-execd"}, ["Pacemaker"]),
        ({"pve-ha-lrm"}, ["Proxmox VE HA"]),
        ({"pve-ha-crm"}, ["Proxmox VE HA"]),
        ({"ganeti-noded"}, ["Ganeti"]),
        ({"rgmanager"}, ["rgmanager"]),
        ({"nova-compute", "pacemakerd"}, ["Pacemaker", "OpenStack Nova"]),
    ],
)
def test_an_agent_is_known_by_its_processes(processes, names):
    assert [one.name for one in running(processes)] == names


@pytest.mark.parametrize("known", AGENTS, ids=[one.name for one in AGENTS])
def test_names_of_processes_fit_into_what_the_kernel_keeps(known):
    assert all(len(name) <= 15 for name in known.processes)


@pytest.mark.parametrize("known", AGENTS, ids=[one.name for one in AGENTS])
@pytest.mark.parametrize(
    ("manages", "calm", "blocks"),
    [
        (True, None, True),
        (None, None, True),
        (False, None, False),
        (True, "the cluster is in maintenance mode", False),
    ],
)
def test_an_agent_blocks_unless_it_is_known_to_leave_the_guests_alone(known, manages, calm, blocks):
    found = agent(SeenAgent(known.name, manages, calm))
    assert (found.blocks, found.can_disable, found.guests) == (blocks, False, ())
    assert (found.advice == known.advice) is blocks
    assert calm is None or calm in found.what


# --- Pacemaker -------------------------------------------------------------------------------

VM = '<primitive id="vm" class="ocf" provider="heartbeat" type="VirtualDomain">{}</primitive>'
ADDRESS = '<primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"/>'
UNMANAGED = '<meta_attributes><nvpair name="is-managed" value="false"/></meta_attributes>'
RULE = '<rule score="INFINITY"><date_expression operation="in_range"/></rule>'


GUEST = VM.format("")


def cib(resources=GUEST, cluster="", node=""):
    return f"""<cib validate-with="pacemaker-3.9"><configuration>
      <crm_config>
        <cluster_property_set id="cib-bootstrap-options">
          <nvpair name="stonith-enabled" value="true"/>
        </cluster_property_set>{cluster}
      </crm_config>
      <nodes>
        <node id="1" uname="host-a">{node}</node>
        <node id="2" uname="host-b"><instance_attributes>
          <nvpair name="standby" value="on"/></instance_attributes></node>
      </nodes>
      <resources><group id="g">{resources}</group></resources>
    </configuration><status/></cib>"""


def in_cluster(value, rule=""):
    return (
        f'<cluster_property_set>{rule}<nvpair name="maintenance-mode" value="{value}"/>'
        "</cluster_property_set>"
    )


def on_node(name, value):
    return f'<instance_attributes><nvpair name="{name}" value="{value}"/></instance_attributes>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, (None, None), id="not told"),
        pytest.param("no XML", (None, None), id="not XML"),
        pytest.param(cib(), (True, None), id="a guest"),
        pytest.param(cib(ADDRESS), (False, None), id="no guest"),
        pytest.param(
            cib('<template id="t" class="ocf" type="VirtualDomain"/>'),
            (True, None),
            id="a template",
        ),
        pytest.param(
            cib('<primitive class="systemd" type="guest"/>'), (True, None), id="a guest's unit"
        ),
        pytest.param(
            cib('<primitive class="systemd" type="httpd"/>'), (False, None), id="another unit"
        ),
        pytest.param(
            cib(cluster=in_cluster("true")), (True, "the cluster is in maintenance mode"), id="mode"
        ),
        pytest.param(cib(cluster=in_cluster("false")), (True, None), id="mode off"),
        pytest.param(cib(cluster=in_cluster("true", RULE)), (True, None), id="mode for some hours"),
        pytest.param(
            cib(cluster=in_cluster("true") + in_cluster("false", RULE)),
            (True, None),
            id="mode but for some hours",
        ),
        pytest.param(
            cib(node=on_node("maintenance", "true")),
            (True, "this node is in maintenance mode"),
            id="node",
        ),
        pytest.param(
            cib(node=on_node("standby", "on")), (True, "this node is in standby"), id="standby"
        ),
        pytest.param(cib(node=on_node("standby", "off")), (True, None), id="standby off"),
        pytest.param(cib(VM.format(UNMANAGED)), (True, "its guests are unmanaged"), id="unmanaged"),
        pytest.param(
            cib(VM.format(UNMANAGED) + VM.format("")), (True, None), id="one of two unmanaged"
        ),
        pytest.param(
            cib(VM.format(UNMANAGED.replace(">", f">{RULE}", 1))), (True, None), id="by a rule"
        ),
    ],
)
def test_pacemaker_is_calm_only_where_its_configuration_says_so(text, expected):
    seen = pacemaker(text, "host-a.example.org", {"guest.service"})
    assert (seen.manages, seen.calm) == expected


# --- Proxmox VE, Ganeti ----------------------------------------------------------------------

STARTED = "vm: 100\n\tgroup all\n\tstate started\n\n"
IGNORED = "vm: 101\n\tstate ignored\n\n"
CONTAINER = "ct: 102\n\tstate started\n\n"
MAINTENANCE = json.dumps({"mode": "maintenance", "state": "maintenance"})


@pytest.mark.parametrize(
    ("resources", "status", "expected"),
    [
        (None, None, (None, None)),
        ("", None, (False, None)),
        (CONTAINER, None, (False, None)),
        (STARTED, None, (True, None)),
        ("vm: 100\n", None, (True, None)),
        (IGNORED, None, (False, None)),
        (IGNORED + CONTAINER, None, (False, None)),
        (IGNORED + STARTED, None, (True, None)),
        (STARTED, '{"mode": "active"}', (True, None)),
        (STARTED, "[]", (True, None)),
        (STARTED, "{", (True, None)),
        (STARTED, MAINTENANCE, (True, "this node is in maintenance mode")),
    ],
)
def test_proxmox_manages_guests_that_are_its_resources(resources, status, expected):
    seen = proxmox(resources, status)
    assert (seen.manages, seen.calm) == expected


@pytest.mark.parametrize(
    ("pause", "calm"),
    [
        (None, None),
        ("", None),
        ("soon\n", None),
        ("999\n", None),
        ("1001\n", "its watcher is paused"),
    ],
)
def test_ganetis_watcher_is_calm_until_its_pause_is_over(pause, calm):
    assert ganeti(pause, 1000.0).calm == calm
